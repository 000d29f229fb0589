"""Try plans on one stack of a model and say of each: exact, refused, WRONG, blind, unproved or crash.

Oracle A: a cut model equals the original with those layers bypassed, bit for bit. Oracle B: saved and loaded plainly,
it still does, and it generates with a cache what it generates without. Oracle C: cut as bytes, it is what was saved
from memory.
"""

import copy
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from depthprune.checkpoints.save import save_checkpoint
from depthprune.errors import CannotDropError, UserError
from depthprune.plan import LayerPlan
from depthprune.surgery import drop_layers
from depthprune.surgery.bypass import bypass_lists

from .compare import Flat, aligned, difference, flatten, same, shows
from .generating import fault_of_generating, trace
from .inputs import Call, run
from .parts import Part, Parts
from .special import BETWEEN
from .streaming import cut_as_bytes
from .tiny import entry, short

EXACT, REFUSED, WRONG, DEAD = "exact", "refused", "WRONG", "DEAD"
BLIND, UNPROVED, CRASH = "blind", "unproved", "crash"
ROUNDING = 1e-5  # of the largest number, where weights of a sum are merged


@dataclass
class Try:
    """What became of one plan.

    Args:
        dropped: the layers it drops.
        outcome: one of the words above.
        reason: the refusal's message, or what differs.
        reloaded: whether the checkpoint was written and loaded again.
        notes: what else was seen.
        part: what was run instead of the whole model.
    """

    dropped: tuple[int, ...]
    outcome: str
    reason: str = ""
    reloaded: bool = False
    notes: str = ""
    part: Part | None = None

    def record(self) -> dict[str, Any]:
        """Return what is written down."""
        return {key: value for key, value in vars(self).items() if key != "part"}


def plans(depth: int, *, sets: int = 4, seed: int = 0, singles: int | None = None) -> list[tuple[int, ...]]:
    """Return every single layer, the first half, every other layer, and a seeded sample of other sets."""
    one = [(i,) for i in range(depth)] if depth > 1 else []
    if singles is not None and len(one) > singles:
        one = [one[i * (depth - 1) // max(singles - 1, 1)] for i in range(singles)]
    more = [tuple(range(depth // 2)), tuple(range(1, depth, 2))]
    draw = random.Random(seed)
    for _ in range(20):
        if depth > 2:
            more.append(tuple(sorted(draw.sample(range(depth), draw.randrange(2, depth)))))
    distinct = [plan for plan in dict.fromkeys(more) if 1 < len(plan) < depth]
    return one + distinct[:sets]


def kinds(config: Any, stack: Any) -> list[tuple[int, ...]]:
    """Return plans that leave no layer of a kind: of a hybrid's attention, say."""
    for part in stack.depth_key.split(".")[:-1]:
        config = getattr(config, part, config)
    found = []
    for name in ("layer_types", "layers_block_type", "block_types", "mlp_layer_types"):
        entries = entry(config, name)
        if isinstance(entries, list | tuple) and len(entries) == stack.depth and len(set(entries)) > 1:
            found += [tuple(i for i in range(stack.depth) if entries[i] == kind) for kind in dict.fromkeys(entries)]
    return found


class Bench:
    """A model on the bench, its calls and what it makes of them.

    Args:
        make: builds the model anew, the same each time.
        calls: what it can be called with; none if it could not be run.
        drop: the surgery under test.
    """

    def __init__(self, make: Callable[[], PreTrainedModel], calls: list[Call], *, drop: Any = drop_layers):
        self._make, self._drop, self.calls = make, drop, calls
        self.model = make()
        if hasattr(self.model.config, "extract_layers"):  # CLIPSeg records only the states that these name
            self.calls = [{**call, "output_hidden_states": True} for call in calls]
        self.full = self.outputs(self.model)
        self.repeats = difference(self.full, self.outputs(self.model)) is None
        self.generates = self._generates(self.model)
        self._parts = Parts(self.model)
        self.sums = any(name.endswith("layer_weights") for name in self.model.state_dict())
        self._lives = self._fault(self.model) is None

    def outputs(self, model: PreTrainedModel) -> Flat:
        """Return every tensor of every call."""
        return {f"{n}.{k}": v for n, call in enumerate(self.calls) for k, v in flatten(run(model, call)).items()}

    def fresh(self) -> PreTrainedModel:
        """Return a copy of the model."""
        try:
            return copy.deepcopy(self.model)
        except Exception:
            return self._make()

    def expected(self, paths: tuple[str, ...], plan: LayerPlan) -> Flat:
        """Return what the original computes with the layers bypassed.

        Raises:
            CannotDropError: they cannot be bypassed.
        """
        if self.model.config.model_type in BETWEEN:
            raise CannotDropError(BETWEEN[self.model.config.model_type])
        with bypass_lists([self.model.get_submodule(path) for path in paths], plan.dropped):
            return self.outputs(self.model)

    def attempt(self, name: str, paths: tuple[str, ...], plan: LayerPlan, *, reload: bool, stream: bool) -> Try:
        """Try a plan on the stack `name`."""
        model = self.fresh()
        try:
            cut = self._drop(model, {name: plan})
        except UserError as error:
            return Try(plan.dropped, REFUSED, str(error))
        except Exception as error:
            return Try(plan.dropped, CRASH, trace(error))
        result = Try(plan.dropped, EXACT)
        try:
            self._judge(cut, paths, plan, result)
            if result.outcome == BLIND or not self.calls:
                self._judge_part(cut, paths, plan, result)
            if result.outcome in (EXACT, BLIND):
                self._live(cut, result)
            if result.outcome in (EXACT, BLIND, UNPROVED) and reload:
                self._reload(cut, result)
                if stream and result.outcome not in (WRONG, DEAD):
                    self._stream(plan, name, cut, result)
        except UserError as error:
            result.outcome, result.reason = REFUSED, f"on saving: {error}"
        except Exception as error:
            result.outcome, result.reason = CRASH, trace(error)
        return result

    def _judge(self, cut: PreTrainedModel, paths: tuple[str, ...], plan: LayerPlan, result: Try) -> None:
        """Oracle A."""
        if not self.calls:
            result.outcome, result.reason = UNPROVED, "not run"
            return
        try:
            got = self.outputs(cut)
        except Exception as error:
            result.outcome, result.reason = WRONG, f"the cut model does not run: {trace(error)}"
            return
        try:
            raw = self.expected(paths, plan)
        except CannotDropError as error:
            self._judge_by_hand(cut, paths, plan, got, result, str(error))
            return
        except Exception as error:
            self._judge_by_hand(cut, paths, plan, got, result, f"the bypass does not run ({short(error)})")
            return
        gap = difference(aligned(raw, plan.depth, plan.kept, got), got, rounding=ROUNDING if self.sums else 0)
        if gap is not None:
            result.outcome, result.reason = WRONG, gap
        elif not shows(self.full, raw):
            result.outcome, result.reason = BLIND, "the output does not depend on these layers"

    def _judge_part(self, cut: PreTrainedModel, paths: tuple[str, ...], plan: LayerPlan, result: Try) -> None:
        """Oracle A on the part of the model around a stack, where the whole says nothing."""
        for part in self._parts.around(paths):
            full = part.outputs(self.model)
            try:
                with bypass_lists([self.model.get_submodule(path) for path in paths], plan.dropped):
                    raw = part.outputs(self.model)
            except Exception:  # it cannot be bypassed: so said of the whole
                continue
            if not shows(full, raw):
                continue
            got = part.outputs(cut)
            gap = difference(aligned(raw, plan.depth, plan.kept, got), got)
            result.part, result.outcome, result.reason = part, EXACT, ""
            result.notes = f"compared in {part.path} alone"
            if gap is not None:
                result.outcome, result.reason = WRONG, f"in {part.path} alone, {gap}"
            return

    def _judge_passes(self, cut: PreTrainedModel, plan: LayerPlan, result: Try) -> None:
        """Where passes share one layer, compare the states between the passes that stay."""
        full, got = (run(model, {**self.calls[0], "output_hidden_states": True}) for model in (self.model, cut))
        expected = dict(enumerate(full.hidden_states[: len(plan.kept) + 1]))
        gap = difference(flatten(expected), flatten(dict(enumerate(got.hidden_states))))
        result.notes = "compared by the states between passes"
        if gap is not None:
            result.outcome, result.reason = WRONG, gap

    def _judge_by_hand(
        self, cut: PreTrainedModel, paths: tuple[str, ...], plan: LayerPlan, got: Flat, result: Try, reason: str
    ) -> None:
        """Where layers cannot be bypassed, compare with the original of which only the module lists are cut.

        Nothing else of it changes: configuration, indices and counters are those of the full model.
        """
        if not any(paths):
            self._judge_passes(cut, plan, result)
            return
        model = self.fresh()
        for path in paths:
            parent, _, name = path.rpartition(".")
            layers: Any = model.get_submodule(path)
            kept = [layer for i, layer in enumerate(layers) if i in plan.kept]  # some are None
            setattr(model.get_submodule(parent), name, type(layers)(kept))
        try:
            raw = self.outputs(model)
        except Exception as error:
            result.outcome, result.reason = (
                UNPROVED,
                f"{reason}; with lists cut by hand it does not run: {short(error)}",
            )
            return
        gap = difference(raw, got)
        if gap is not None:
            result.outcome, result.reason = UNPROVED, f"{reason}; with lists cut by hand, {gap}"
        elif not shows(self.full, raw):
            result.outcome, result.reason = BLIND, "the output does not depend on these layers"
        else:
            result.notes = f"compared with lists cut by hand, since {reason}"

    def _reload(self, cut: PreTrainedModel, result: Try) -> None:
        """Oracle B."""
        with tempfile.TemporaryDirectory(prefix="census-") as scratch:
            folder = save_checkpoint(cut, Path(scratch) / "cut")
            again = type(cut).from_pretrained(folder, dtype="auto").eval()
        result.reloaded = True
        gap = difference(self.outputs(cut), self.outputs(again)) if self.calls else None
        if gap is not None:  # a kernel can round otherwise where numbers lie at odd addresses, as in a mapped file
            with torch.no_grad():
                for parameter in (*cut.parameters(), *again.parameters()):
                    parameter.data = parameter.data.clone()
            gap = difference(self.outputs(cut), self.outputs(again))
        if gap is None and result.part is not None:
            gap = difference(result.part.outputs(cut), result.part.outputs(again))
        if gap is not None:
            result.outcome, result.reason = WRONG, f"saved and loaded, {gap}"
            return
        for model in (cut, again) if self.caches_exactly else ():
            said = fault_of_generating(model, self.calls[0])
            if said:
                where = "in memory" if model is cut else "saved and loaded"
                result.outcome, result.reason = WRONG, f"generating, {where}: {said}"

    def _live(self, cut: PreTrainedModel, result: Try) -> None:
        """Run what runs with the full model, as a user would: forward with its own cache, and generate."""
        said = self._fault(cut) if self._lives else None
        if said is None and self.generates:
            said = fault_of_generating(cut, self.calls[0])
            said = None if said is None or said.startswith("the cache") else f"generate: {said}"
        if said is not None:
            result.outcome, result.reason = DEAD, said

    def _fault(self, model: PreTrainedModel) -> str | None:
        """Say why a forward pass with the default cache fails, or None."""
        if not self.calls or "use_cache" not in self.calls[0]:
            return None
        try:
            run(model, {key: value for key, value in self.calls[0].items() if key != "use_cache"})
        except Exception as error:
            return trace(error)
        return None

    def _stream(self, plan: LayerPlan, name: str, cut: PreTrainedModel, result: Try) -> None:
        """Oracle C."""
        with tempfile.TemporaryDirectory(prefix="census-") as scratch:
            folder = Path(scratch)
            self.fresh().save_pretrained(folder / "full")
            save_checkpoint(cut, folder / "memory")
            try:
                cut_as_bytes(folder / "full", folder / "stream", {name: plan})
            except UserError as error:
                _note(result, f"not streamed: {error}")
                return
            one, other = (_tensors(folder / part) for part in ("memory", "stream"))
        odd = sorted(set(one) ^ set(other)) or [key for key in one if not same(one[key], other[key])]
        if odd:
            result.outcome, result.reason = WRONG, f"streamed, '{odd[0]}' is not what was saved from memory"
        else:
            _note(result, "streamed")

    def _generates(self, model: PreTrainedModel) -> bool:
        """Tell whether the full model generates the same with a cache and without."""
        if not self.calls or not hasattr(model, "generate") or not model.can_generate():
            return False
        return fault_of_generating(model, self.calls[0]) is None

    @cached_property
    def caches_exactly(self) -> bool:
        """Whether the full model's logits with a cache are those without, so that another text would be the cut's."""
        return self.generates and fault_of_generating(self.fresh(), self.calls[0], to_the_logit=True) is None


def try_stack(
    bench: Bench, stack: Any, chosen: list[tuple[int, ...]], *, stream: bool, reloads: int | None
) -> Iterator[dict[str, Any]]:
    """Yield what becomes of each plan on a stack."""
    paths = tuple(getattr(stack, "paths", None) or (stack.path,))
    streamed = not stream
    last, many = len(chosen) - 1, len(chosen) if reloads is None else min(reloads, len(chosen))
    due = {i * last // max(many - 1, 1) for i in range(many)}  # single layers and larger sets
    owed = 0
    for i, dropped in enumerate(chosen):
        owed += i in due
        plan = LayerPlan(stack.depth, dropped)
        result = bench.attempt(stack.name, paths, plan, reload=owed > 0, stream=not streamed)
        owed -= result.reloaded
        streamed = streamed or "streamed" in result.notes
        yield result.record()


def _note(result: Try, text: str) -> None:
    result.notes = f"{result.notes}; {text}" if result.notes else text


def _tensors(folder: Path) -> Flat:
    return {k: v for file in sorted(folder.glob("*.safetensors")) for k, v in load_file(file).items()}
