"""Write a cut as a folder that a person can use and pass on: weights, card, history, and what was made for the model.

No torch. Adapters of the original model are cut along with it, and a sentence-transformers folder is written whole.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from depthprune.checkpoints.adapters.cut import cut_adapter
from depthprune.checkpoints.card import model_card
from depthprune.checkpoints.companions import card_of, copy_others
from depthprune.checkpoints.cut import Cut
from depthprune.checkpoints.history import PROVENANCE_FILE, provenance
from depthprune.checkpoints.stream import Opened, fill, write_json
from depthprune.output import check_outside, whole_folder
from depthprune.plan import LayerPlan, format_layers
from depthprune.sources import ModelSource
from depthprune.surgery.stacks import Stack

ADAPTERS = "adapters"
CARD = "README.md"


def publish(
    given: Opened,
    cut: Cut,
    target: Path,
    *,
    root: Path | None = None,
    adapters: Sequence[Path] = (),
    strategy: str | None = None,
    scores: Mapping[str, Sequence[float]] | None = None,
    verify: str = "headers",
) -> dict[str, Any]:
    """Write and prove a cut, with its card and history, whole or not at all.

    Args:
        given: the source.
        cut: of `plan_cut`.
        target: a folder that does not exist or is empty.
        root: the sentence-transformers folder that the source is the transformer of, if it is.
        adapters: PEFT folders made for the source; each goes to `adapters/NAME` in the target.
        strategy: what chose the layers, if anything did.
        scores: stack → the scores of its layers, where it chose by these.
        verify: see `stream.fill`.

    Returns:
        What the proof found; see `stream.fill`.

    Raises:
        UserError: see `stream.drop_layers_in_checkpoint` and `adapters.cut_adapter`.
    """
    whole = root or given.source.path
    check_outside(target, whole)
    plans = {stack.name: plan for stack, plan in cut.plans.items()}
    history = provenance(given.source, plans, strategy=strategy, scores=scores)
    with whole_folder(target, num_bytes=cut.kept_bytes) as partial:
        inside = partial / given.source.path.relative_to(whole)
        inside.mkdir(parents=True, exist_ok=True)
        answer = fill(given, cut, inside, verify=verify)
        write_json(inside / PROVENANCE_FILE, history)
        if root is not None:
            copy_others(root, partial, transformer=given.source.path, python=given.source.trust_remote_code)
        if history["cuts"]:
            text = model_card(
                history,
                name=target.name,
                config={**cut.config, "architectures": [answer["class"]]},
                source_card=card_of(whole),
                parameters=cut.parameters,
                command=command_for(given.source, plans),
                proof=said(answer, verify),
                library="transformers" if root is None else "sentence-transformers",
            )
            (partial / CARD).write_text(text, encoding="utf-8")
        for adapter in adapters:
            place = partial / ADAPTERS / adapter.resolve().name
            cut_adapter(adapter, place, plans=_all_stacks(given, cut), base_model=str(target), provenance=history)
    return answer


def said(answer: Mapping[str, Any], verify: str) -> str:
    """Return what a proof found, as a sentence without its full stop."""
    loaded = "plain from_pretrained takes exactly these tensors"
    how = loaded if answer["how"] == "loaded" else f"the headers agree with the source's; {answer['how']}"
    more = {"headers": "", "full": "; every byte compared with the source", "logits": f"; {answer.get('logits')}"}
    return how + more[verify]


def _all_stacks(given: Opened, cut: Cut) -> dict[Stack, LayerPlan]:
    """Return every stack under the paths of its tensors and of its modules, those that lose nothing too."""
    plans = {stack.name: plan for stack, plan in cut.plans.items()}
    found = {}
    for name, stack in given.stacks.items():
        paths = tuple(dict.fromkeys((*stack.paths, *given.modules.get(name, ()))))
        both = Stack(name, paths, stack.depth_key, stack.depth)
        found[both] = plans.get(name, LayerPlan(stack.depth, ()))
    return found


def command_for(source: ModelSource, plans: Mapping[str, LayerPlan]) -> str:
    """Return a command that makes this cut again, without the paths of this machine."""
    name = source.name if source.commit is not None else source.path.resolve().name
    layers = {stack: format_layers(plan.dropped) for stack, plan in plans.items() if plan.dropped}
    options = [
        f"--layers {shlex.quote(text if stack == 'layers' else f'{stack}={text}')}" for stack, text in layers.items()
    ]
    return " ".join(["depthprune drop", shlex.quote(name), *options, "--output DIR"])
