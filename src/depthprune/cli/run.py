"""`depthprune run`: drop, fine-tune, score beside the full model, save."""

from pathlib import Path

from depthprune.cli import options
from depthprune.cli.options import check_healing, quiet_libraries, task_options
from depthprune.plan import format_layers, parse_layers


def run(
    model: options.Model,
    task: options.TaskName,
    strategy: options.Strategy = None,
    count: options.Count = None,
    layers: options.Layers = None,
    keep: options.Keep = None,
    threshold: options.Threshold = None,
    protect: options.Protect = None,
    dataset: options.Dataset = None,
    text_columns: options.TextColumns = None,
    label_column: options.LabelColumn = None,
    eval_split: options.EvalSplit = None,
    regression: options.Regression = False,
    classification: options.Classification = False,
    metric: options.TaskMetric = None,
    seed: options.Seed = 42,
    epochs: options.Epochs = 3,
    learning_rate: options.LearningRate = 2e-5,
    batch_size: options.BatchSize = 32,
    weight_decay: options.WeightDecay = 0.0,
    max_length: options.MaxLength = 128,
    precision: options.Precision = "auto",
    similar_lengths: options.SimilarLengths = False,
    epochs_before: options.EpochsBefore = 0.0,
    freeze_dropped: options.FreezeDropped = False,
    drop_every: options.DropEvery = 0.0,
    drop_every_steps: options.DropEverySteps = 0,
    freeze_layers: options.FreezeLayers = None,
    freeze_embeddings: options.FreezeEmbeddings = False,
    heal: options.Heal = None,
    teacher: options.Teacher = None,
    output: options.Output = None,
    store: options.StoreFolder = Path("runs"),
    force: options.Force = False,
    no_profile: options.NoProfile = False,
    quiet: options.Quiet = False,
    device: options.Device = "auto",
    allow_pickle: options.AllowPickle = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Drop layers, fine-tune what is left, score it beside the full model, save it.

    Both runs are recorded in the store, and a recorded run is not run again. Under torchrun the processes share the
    training, and the first one records.
    """
    from depthprune.healing.recipe import parse_recipe
    from depthprune.specs import HealSpec

    check_healing(epochs, learning_rate, precision)
    frozen = tuple(sorted(set(parse_layers(freeze_layers)))) if freeze_layers else ()
    spec = HealSpec(
        epochs, batch_size, learning_rate, weight_decay, precision=precision, similar_lengths=similar_lengths,
        epochs_before=epochs_before, freeze_dropped=freeze_dropped, drop_every=drop_every,
        drop_every_steps=drop_every_steps, freeze_layers=frozen,
        freeze_embeddings=freeze_embeddings, steps=parse_recipe(heal) if heal else (),
    )  # fmt: skip
    if output is not None:
        from depthprune.output import check_target

        check_target(output)

    from depthprune import processes
    from depthprune.cli.progress import progress

    with progress(quiet=quiet) as show:
        show("starting", 0, 1)  # torch and transformers take seconds to import
        quiet_libraries()
        from depthprune.experiments.comparison import compare

        result = compare(
            model,
            task,
            strategy=strategy,
            count=count,
            layers=layers,
            keep=keep,
            threshold=threshold,
            protect=protect,
            options=task_options(
                *(dataset, text_columns, label_column, eval_split),
                regression=regression,
                classification=classification,
                metric=metric,
            ),
            heal=spec,
            teacher=teacher,
            max_length=max_length,
            seed=seed,
            store=store,
            device=device,
            force=force,
            profile=not no_profile,
            allow_pickle=allow_pickle,
            trust_remote_code=trust_remote_code,
            on_progress=show,
        )
    if processes.is_first():
        _say(result, f"{model} on {task}", strategy or "chosen", store, output)
    processes.end()


def _say(result, title: str, chosen: str, store: Path, output: Path | None) -> None:
    """Print both runs beside each other, and where they are recorded; move the checkpoint if asked for."""
    from depthprune.cli.display import console, lost_line, metrics_line, results_table, speed_line
    from depthprune.experiments.resampling import lost_interval

    for note in dict.fromkeys([*result.full.outcome["notes"], *result.pruned.outcome["notes"]]):
        console.print(note, highlight=False)
    rows = [{"name": "full", "dropped": "", "result": result.full}]
    dropped = result.pruned.outcome["plan"]["dropped"]
    if dropped:
        rows.append({"name": chosen, "dropped": format_layers(dropped), "result": result.pruned})
    console.print(results_table(title, rows, result.full.outcome["primary"]))
    for row in rows:
        state = "stored before" if row["result"].stored else "done now"
        console.print(f"{row['name']}: {metrics_line(row['result'].outcome['metrics'])}", highlight=False)
        console.print(
            f"  record: {store / row['result'].digest / 'record.json'} ({state})",
            highlight=False,
            soft_wrap=True,
        )
    if dropped:
        primary = result.full.outcome["primary"]
        full, pruned = (store / run.digest for run in (result.full, result.pruned))
        examples = result.pruned.outcome["metrics"][primary]["examples"]
        interval = lost_interval(full, pruned, primary)
        line = lost_line(result.full.score - result.pruned.score, interval, examples)
        console.print(line, highlight=False, soft_wrap=True)
    if "speedup" in (profile := result.pruned.outcome["profile"]):
        console.print(speed_line(profile["speedup"]), highlight=False)
    assert result.pruned.model is not None
    checkpoint = result.pruned.model
    if output is not None:
        from depthprune.experiments.kept_checkpoints import hand_over
        from depthprune.experiments.store import Store

        checkpoint = hand_over(Store(store), result.pruned.digest, output)
    console.print(f"checkpoint: {checkpoint}", highlight=False, soft_wrap=True)
