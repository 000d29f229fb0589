"""`depthprune drop`: write a shorter checkpoint, without training."""

from pathlib import Path
from typing import Annotated

import typer

from depthprune.cli import options
from depthprune.cli.options import quiet_libraries
from depthprune.plan import format_layers


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

    from depthprune.loading import load_model
    from depthprune.sources import locate

    source = locate(model, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    from depthprune.experiments.prepare import stack_depth

    plan = plan_layers(stack_depth(source), strategy=strategy, count=count, layers=layers, keep=keep)
    quiet_libraries()
    from depthprune.experiments.provenance import checkpoint_provenance
    from depthprune.profiling.footprint import num_parameters
    from depthprune.surgery import drop_layers, save_checkpoint

    whole = load_model(source)
    before = num_parameters(whole)
    cut = drop_layers(whole, plan)
    save_checkpoint(cut, output, tokenizer_from=source.path, provenance=checkpoint_provenance(source, plan))
    after = num_parameters(cut)
    print(f"dropped layers {format_layers(plan.dropped) or 'none'} of {plan.depth}, kept {format_layers(plan.kept)}")
    print(f"{type(cut).__name__}: {before:,} → {after:,} parameters ({100 * (after / before - 1):+.1f} %)")
    print(f"checkpoint: {output} (proved: it loads back with plain from_pretrained, tensor for tensor)")
