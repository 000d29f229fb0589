"""`depthprune search`: try plans on calibration data, and find the one that costs least."""

from pathlib import Path
from typing import Annotated

import typer

from depthprune.cli import options
from depthprune.cli.fields import Fields
from depthprune.cli.options import engine_options, quiet_libraries
from depthprune.specs import HealSpec

Method = Annotated[str, typer.Option("--method", help="greedy, beam, evolutionary or exhaustive.")]
Counts = Annotated[str, typer.Option("--count", help="How many layers to drop: 3, or 1-4 for each of these.")]
Objective = Annotated[
    str | None,
    typer.Option(
        "--objective",
        help="loss, perplexity, kl, embedding, metric (a task's, without training) or finetuned (with); what fits if "
        "left out.",
    ),
]
Race = Annotated[bool, typer.Option("--race", help="Give candidates up that are clearly worse on a part of the data.")]
NoReuse = Annotated[bool, typer.Option("--no-reuse", help="Run every plan from its beginning, to compare.")]
Width = Annotated[int, typer.Option("--width", help="Plans that a beam keeps.", min=1)]
Generations = Annotated[int, typer.Option("--generations", help="Of the evolutionary search.", min=1)]
FoundFile = Annotated[Path, typer.Option("--output", help="Where to write what was found (JSON).", show_default=False)]


def search(
    model: options.Model,
    data: options.Data,
    count: Counts,
    output: FoundFile,
    method: Method = "greedy",
    objective: Objective = None,
    protect: options.Protect = None,
    race: Race = False,
    no_reuse: NoReuse = False,
    width: Width = 3,
    generations: Generations = 20,
    figure: options.Figure = None,
    stack: options.StackName = None,
    dataset: options.Dataset = None,
    config: options.DataConfig = None,
    split: options.Split = None,
    text_columns: options.SampleColumns = None,
    label_column: options.SampleLabel = None,
    regression: options.Regression = False,
    classification: options.Classification = False,
    task_metric: options.SampleMetric = None,
    samples: options.Samples = None,
    length: options.Length = None,
    seed: options.SampleSeed = 42,
    batch_size: options.ForwardBatch = 16,
    dtype: options.Dtype = "auto",
    cache_memory: options.CacheMemory = "2GB",
    cache_dir: options.CacheDir = None,
    heal: Annotated[HealSpec, Fields(("num_epochs", "learning_rate"))] = HealSpec(),
    store: options.StoreFolder = Path("runs"),
    device: options.Device = "auto",
    allow_pickle: options.AllowPickle = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Search for the layers to drop; `depthprune drop --search FILE --count K` then drops them.

    Every plan that was evaluated is written beside the output, and a search that was stopped goes on from there.
    """
    from depthprune.plan import parse_counts
    from depthprune.result_file import check_file, write_json
    from depthprune.strategies.evaluator import read_trace
    from depthprune.strategies.searched import methods

    methods.get(method)
    engine = engine_options(batch_size, device, dtype, cache_memory, cache_dir)
    check_file(output)
    if figure is not None:
        from depthprune.reporting.drawings.canvas import check_figure

        check_figure(figure)
    from depthprune.experiments.choosing.search import SearchOptions, search_layers

    sample = options.sample_options(
        *(data, dataset, config, split, samples, length, seed),
        text_columns=text_columns,
        label_column=label_column,
        regression=regression,
        classification=classification,
        task_metric=task_metric,
    )
    chosen = SearchOptions(
        parse_counts(count), objective, protect, race, not no_reuse, width, generations, seed,
        heal, store,
    )  # fmt: skip
    trace = output.with_suffix(".trace.jsonl")
    quiet_libraries()
    from depthprune.cli.display import console, found_table, progress

    with progress() as show:
        found = search_layers(
            model,
            method,
            sample,
            chosen,
            stack=stack,
            engine=engine,
            trace=trace,
            allow_pickle=allow_pickle,
            trust_remote_code=trust_remote_code,
            on_progress=show,
        )
    write_json(output, found.to_dict())
    for note in found.calibration.get("notes", ()):
        console.print(note, highlight=False)
    console.print(found_table(found))
    console.print(f"found: {output} (all plans: {trace.name})", highlight=False, soft_wrap=True)
    if figure is not None:
        from depthprune.reporting.drawings.figures import draw_search

        draw_search(found, read_trace(trace), figure)
        console.print(f"picture: {figure}", highlight=False, soft_wrap=True)
