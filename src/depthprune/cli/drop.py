"""`depthprune drop`: write a shorter checkpoint, without training."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from depthprune.cli import options
from depthprune.cli.options import quiet_libraries
from depthprune.plan import LayerPlan, format_layers

if TYPE_CHECKING:
    from depthprune.sources import ModelSource


def drop(
    model: options.Model,
    output: Annotated[Path, typer.Option("--output", help="Where to write the checkpoint.", show_default=False)],
    strategy: options.Strategy = None,
    count: options.Count = None,
    layers: options.Layers = None,
    keep: options.Keep = None,
    allow_pickle: options.AllowPickle = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Drop layers and save what is left as a plain checkpoint, with the head it has and without training."""
    from depthprune.errors import PlanError
    from depthprune.output import check_target
    from depthprune.strategies import plan_layers, registry

    check_target(output)
    if strategy is not None:
        registry.get(strategy)
    elif layers is None and keep is None:
        raise PlanError(
            f"say which layers go: --strategy {' | '.join(registry.names())} with --count, --layers or --keep"
        )

    from depthprune.sources import locate

    source = locate(model, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    from depthprune.experiments.prepare import stack_depth

    plan = plan_layers(stack_depth(source), strategy=strategy, count=count, layers=layers, keep=keep)
    if _streamable(source):
        before, after = _stream(source, plan, output)
    else:
        before, after = _in_memory(source, plan, output)
    kept = f"kept {format_layers(plan.kept)}"
    print(f"dropped layers {format_layers(plan.dropped) or 'none'} of {plan.depth}, {kept}")
    print(f"{before:,} → {after:,} parameters ({100 * (after / before - 1):+.1f} %)")
    print(f"checkpoint: {output} (proved: plain from_pretrained takes exactly these tensors)")


def _streamable(source: "ModelSource") -> bool:
    """Bytes can be copied from safetensors files of a model whose config.json names one depth."""
    from depthprune.surgery.anatomy import depth_keys

    return source.weights[0].suffix == ".safetensors" and len(depth_keys(source.config)) == 1


def _stream(source: "ModelSource", plan: LayerPlan, output: Path) -> tuple[int, int]:
    from math import prod

    from depthprune.experiments.provenance import checkpoint_provenance
    from depthprune.surgery.stream import drop_layers_in_checkpoint

    provenance = checkpoint_provenance(source, plan)
    cut = drop_layers_in_checkpoint(source, output, plan=plan, provenance=provenance)
    after = sum(prod(tensor.shape) for tensor in cut.kept.values())
    return after + sum(prod(tensor.shape) for tensor in cut.dropped), after


def _in_memory(source: "ModelSource", plan: LayerPlan, output: Path) -> tuple[int, int]:
    quiet_libraries()
    from depthprune.experiments.provenance import checkpoint_provenance
    from depthprune.loading import load_model
    from depthprune.profiling.footprint import num_parameters
    from depthprune.surgery import drop_layers, save_checkpoint

    whole = load_model(source)
    before = num_parameters(whole)
    cut = drop_layers(whole, plan)
    save_checkpoint(cut, output, tokenizer_from=source.path, provenance=checkpoint_provenance(source, plan))
    return before, num_parameters(cut)
