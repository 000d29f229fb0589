"""`depthprune drop`: write a shorter checkpoint, without training."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from depthprune.cli import options
from depthprune.cli.plan_files import check_alone, check_strategy, decision_from_file
from depthprune.plan import Plans, format_layers

if TYPE_CHECKING:
    from depthprune.checkpoints.cut import Cut
    from depthprune.checkpoints.drop import Decision
    from depthprune.sources import ModelSource

Counts = Annotated[
    list[str] | None, typer.Option("--count", help="How many layers to drop: 3, or decoder=3 for one stack of several.")
]
Layers = Annotated[
    list[str] | None,
    typer.Option("--layers", help="Layers to drop, from 0: 8,9-11, or encoder=8,9-11. Can be given for each stack."),
]
Keep = Annotated[list[str] | None, typer.Option("--keep", help="Layers to keep, in the same form.")]
Verify = Annotated[
    str,
    typer.Option(
        "--verify",
        help="headers; full: also compare every byte written with the source; logits: also run both models.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, prove it, and write nothing.")]
Original = Annotated[
    bool,
    typer.Option(
        "--original-indices", help="Layer indices refer to the first ancestor of a model that was cut before."
    ),
]
Adapters = Annotated[
    list[Path] | None,
    typer.Option("--adapter", help="A PEFT adapter of the model, to be cut with it. Can be given again."),
]
ScoreFile = Annotated[
    Path | None,
    typer.Option("--scores", help="Choose by these scores (depthprune score), with --count or --threshold."),
]
SearchFile = Annotated[
    Path | None, typer.Option("--search", help="Drop what this search found (depthprune search), with --count.")
]
Select = Annotated[
    str | None, typer.Option("--select", help="With --scores: lowest or window; by default as in the method's paper.")
]


def drop(
    model: options.Model,
    output: options.Output = None,
    strategy: options.Strategy = None,
    count: Counts = None,
    layers: Layers = None,
    keep: Keep = None,
    scores: ScoreFile = None,
    search: SearchFile = None,
    threshold: options.Threshold = None,
    select: Select = None,
    protect: options.Protect = None,
    original_indices: Original = False,
    adapter: Adapters = None,
    dry_run: DryRun = False,
    verify: Verify = "headers",
    allow_pickle: options.AllowPickle = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Drop layers and save the rest as a plain checkpoint, with its head and without training."""
    from depthprune.checkpoints.drop import Decision, check_level, locate_whole
    from depthprune.checkpoints.history import plans_from_original
    from depthprune.errors import OutputError, PlanError, UserError
    from depthprune.output import check_target
    from depthprune.strategies import plan_stacks, registry

    if output is not None:
        check_target(output)
    elif not dry_run:
        raise OutputError("say where to write the checkpoint: --output DIR, or --dry-run to write nothing")
    check_level(verify)
    by_file = scores is not None or search is not None
    if by_file:
        check_alone(scores, search, layers=layers, keep=keep, original_indices=original_indices)
    elif threshold is not None or select is not None or protect is not None:
        raise PlanError("--threshold, --select and --protect choose by scores; give --scores FILE")
    elif strategy is not None:
        check_strategy(strategy)
    elif not layers and not keep:
        raise PlanError(
            f"say which layers to drop: --strategy {' | '.join(registry.names())} with --count, --layers or --keep"
        )
    if original_indices and strategy is not None:
        raise PlanError("--original-indices applies to named layers only; give --layers or --keep")

    source, root = locate_whole(model, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)

    def decide(depths: Mapping[str, int]) -> Decision:
        if by_file:
            options_of = {"counts": count, "threshold": threshold, "select": select, "protect": protect}
            return decision_from_file(source, depths, scores, search, strategy, **options_of)

        def say(of: Mapping[str, int]) -> Plans:
            return plan_stacks(of, strategy=strategy, counts=count or (), layers=layers or (), keep=keep or ())

        plans = plans_from_original(source.path, depths, say) if original_indices else say(depths)
        return Decision(plans, strategy)

    if source.weights[0].suffix == ".safetensors":
        if dry_run:
            _preview(source, decide)
        else:
            assert output is not None
            _stream(source, root, decide, output, adapter or [], verify)
    elif dry_run or verify != "headers" or adapter:
        raise UserError("--dry-run, --verify and --adapter need safetensors files; save the model with save_pretrained")
    else:
        assert output is not None
        _in_memory(source, decide, output)


def _stream(
    source: "ModelSource",
    root: Path | None,
    decide: "Callable[[Mapping[str, int]], Decision]",
    output: Path,
    adapters: list[Path],
    verify: str,
) -> None:
    from depthprune.checkpoints.drop import drop_checkpoint

    done = drop_checkpoint(source, output, decide, adapters=adapters, verify=verify, root=root)
    _show_plans(done.plans)
    _show_sizes(done.plans, done.parameters, done.num_bytes)
    for folder in done.adapters:
        print(f"adapter: {folder}")
    print(f"checkpoint: {output} (proved: {done.proof})")


def _preview(source: "ModelSource", decide: "Callable[[Mapping[str, int]], Decision]") -> None:
    """Show what would be done, and prove it."""
    from depthprune.checkpoints.drop import planned, proof_of
    from depthprune.checkpoints.stream import beyond, proving

    with planned(source, decide) as (given, cut, decision):
        with proving(given, cut, cache=True) as verdict:
            answer = verdict()
        _show_tensors(cut)
        if (why := beyond(given, cut)) is not None:
            print(f"{why.reason}: the cut will need --verify logits")
    _show_plans(decision.plans)
    _show_sizes(decision.plans, cut.parameters, (cut.checkpoint.num_bytes, cut.kept_bytes))
    if all(answer.get("cache_bytes_per_token") or [None]):
        old, new = answer["cache_bytes_per_token"]
        print(f"cache: {old:,} → {new:,} bytes per token")
    print(f"nothing written (proved: {proof_of(answer, 'headers')})")


def _in_memory(source: "ModelSource", decide: "Callable[[Mapping[str, int]], Decision]", output: Path) -> None:
    options.quiet_libraries()
    from depthprune.checkpoints.drop import command_for
    from depthprune.checkpoints.history import provenance
    from depthprune.checkpoints.save import save_made
    from depthprune.loading import load_model
    from depthprune.profiling.footprint import num_parameters
    from depthprune.surgery import drop_layers, find_stacks
    from depthprune.surgery.stacks import depths_of

    whole = load_model(source)
    before = num_parameters(whole)
    decision = decide(depths_of(find_stacks(whole)))
    plans = decision.plans
    cut = drop_layers(whole, plans)
    _ = source.identity  # a pickle is hashed completely in any case
    parameters = (before, num_parameters(cut))
    command = command_for(source, plans)
    save_made(
        cut,
        output,
        source=source,
        provenance=provenance(source, plans, strategy=decision.strategy, scores=decision.scores),
        parameters=parameters,
        command=f"{command} --allow-pickle" if command is not None else None,
    )
    _show_plans(plans)
    _show_sizes(plans, parameters)
    print(f"checkpoint: {output} (proved: plain from_pretrained takes exactly these tensors)")


def _show_plans(plans: Plans) -> None:
    for name, plan in plans.items():
        of = f" of {plan.depth}" if name == "layers" else f" of {plan.depth} ({name})"
        print(f"dropped layers {format_layers(plan.dropped) or 'none'}{of}, kept {format_layers(plan.kept)}")


def _show_sizes(plans: Plans, parameters: tuple[int, int], num_bytes: tuple[int, int] | None = None) -> None:
    before, after = parameters
    if before == after and any(plan.dropped for plan in plans.values()):
        print("all passes share one layer: the number of passes falls, and no parameters are dropped")
    more = "" if num_bytes is None else f", {num_bytes[0] / 1e6:,.1f} → {num_bytes[1] / 1e6:,.1f} MB"
    print(f"{before:,} → {after:,} parameters ({100 * (after / before - 1):+.1f} %){more}")


def _show_tensors(cut: "Cut") -> None:
    """Print what happens to the tensors, one line per layer."""
    staying = {piece.tensor.name: new for new, piece in cut.kept.items()}
    outside = set(cut.checkpoint.tensors)
    for stack, plan in cut.plans.items():
        for path in stack.paths:
            for layer in range(stack.depth):
                tensors = [t for name, t in cut.checkpoint.tensors.items() if name.startswith(f"{path}.{layer}.")]
                outside -= {t.name for t in tensors}
                new = plan.new_index(layer)
                moved = [t for t in tensors if new is None and t.name in staying]
                here = [t for t in tensors if t not in moved]
                what = f"{len(here)} tensors, {sum(t.num_bytes for t in here) / 1e6:,.1f} MB"
                fate = f"goes   {path}.{layer}" if new is None else f"stays  {path}.{layer} → {path}.{new}"
                print(f"{fate}  ({what})")
                for tensor in moved:
                    print(f"stays  {tensor.name}, with the new first layer")
    print(f"stays  {len(outside & staying.keys())} tensors outside these stacks")
    for name in sorted(outside - staying.keys()):
        print(f"goes   {name}")
    for piece in cut.kept.values():
        if piece.part is not None:
            print(f"shrinks {piece.tensor.name}  {list(piece.tensor.shape)} → {list(piece.shape)}")
