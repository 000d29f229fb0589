"""The state of a training, saved now and then, from which one that was killed is resumed; on a CPU bit for bit.

    training/1/checkpoint-40/   what transformers' Trainer saves: optimiser, schedule, random numbers, position
        weights.pt              every tensor of the model
        more.pt                 what Trainer does not know of: the best epoch so far, losses, time
        about.json              which training it is; written last, so that a folder without it is not whole
    training/1/finished/        weights and report of a training that is done, for those after it in its recipe

A state is saved every five minutes, or less often where saving takes long, so that a short training saves none. What is
not saved is done again: short trainings, steps of a recipe that train nothing, a teacher's answers.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from transformers import TrainerCallback

from depthprune import processes
from depthprune.healing.base import HealReport, Schedule, TrainingData
from depthprune.result_file import replace_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

EVERY = 300.0  # seconds between two savings
WORTH = 50  # times as long as saving takes
SPARE = 1 << 30  # bytes that stay free on the disk
WEIGHTS, MORE, ABOUT, FINISHED = "weights.pt", "more.pt", "about.json", "finished"
PACKAGES = ("depthprune", "torch", "transformers", "accelerate")
Events = Sequence[tuple[int, Callable[[], None]]]


class Stateful(Protocol):
    """What changes in the course of a training, and is saved with it."""

    def state_dict(self) -> dict[str, Any]:
        """Return its state: numbers, texts, tensors, and lists and dictionaries of these."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a state back."""
        ...


class Saving(TrainerCallback):
    """Saves the state of a training when it is time, and restores it when the training begins.

    Args:
        folder: of this training alone; made when something is saved.
        about: which training it is, as JSON values. The state of any other one is removed.
        model: that is trained.
        precisions: of the trainings of the run so far, this one included.
        events: as `healing.training.train` gets them. Layers that went go again before the weights are loaded.
        say: called with a line about what is resumed, and what is not.
    """

    def __init__(
        self,
        folder: Path,
        about: Mapping[str, Any],
        model: "PreTrainedModel",
        precisions: Sequence[str],
        events: Events,
        say: Callable[[str], None],
    ):
        self.folder, self._model, self._events, self._say = folder, model, events, say
        self._precisions = list(precisions)
        self._about = json.loads(json.dumps(about))
        self._parts: dict[str, Stateful] = {}
        self._seconds, self._resumed = 0.0, list[int]()
        self._began = self._saved_at = time.perf_counter()
        self._took, self._full = 0.0, False
        self._state, known = _newest(folder)
        if known and known["training"] != self._about:
            other = next(name for name in self._about if known["training"].get(name) != self._about[name])
            say(f"the training begins anew, since its saved state is of another {other}")
            self._state = None
        if self._state is None:
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def checkpoint(self) -> Path | None:
        """The state to resume from; None where there is none."""
        return self._state if self._state is None or self._state.name != FINISHED else None

    @property
    def epochs(self) -> int:
        """How many passes over the rows were whole when the state was saved."""
        if self.checkpoint is None:
            return 0
        return int(json.loads((self.checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["epoch"])

    @property
    def resumed_steps(self) -> tuple[int, ...]:
        """The steps from which the training was resumed."""
        return tuple(self._resumed)

    @property
    def seconds(self) -> float:
        """The time of the training so far, that before it was resumed included."""
        return self._seconds + time.perf_counter() - self._began

    def finished(self) -> HealReport | None:
        """Put the weights into the model where the training is done already, and return its report."""
        if self._state is None or self._state.name != FINISHED:
            return None
        values = json.loads((self._state / ABOUT).read_text(encoding="utf-8"))["report"]
        lists = {name: tuple(values[name]) for name in ("history", "resumed_steps")}
        report = HealReport(**{**values, **lists})
        self._load_weights(report.steps)
        self._say(f"a training of {report.steps} steps was done before")
        return report

    def include(self, **parts: Any) -> None:
        """Save the states of these as well, of those that have one."""
        self._parts |= {name: part for name, part in parts.items() if hasattr(part, "state_dict")}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Restore the state. The optimiser, made of all parameters, has its own again by now."""
        if self.checkpoint is not None:
            self._load_weights(state.global_step)
            more = torch.load(self.checkpoint / MORE, map_location="cpu", weights_only=True)
            for name, part in self._parts.items():
                part.load_state_dict(more["parts"][name])
            self._seconds, self._resumed = more["seconds"], [*more["resumed_steps"], state.global_step]
            self._say(f"resuming the training at step {state.global_step}")
        self._began = self._saved_at = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a saving if it is time, but at the end of an epoch: that is measured first."""
        control.should_save = self._is_due(control) and not float(state.epoch).is_integer()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a saving if it is time."""
        control.should_save = self._is_due(control)

    def _is_due(self, control: Any) -> bool:
        # A state that ends the training would not end it again: Trainer forgets that when it resumes.
        if self._full or control.should_training_stop:
            return False
        return time.perf_counter() - self._saved_at >= max(EVERY, WORTH * self._took)

    def has_room(self) -> bool:
        """Tell whether the disk has room for a state; where it has not, that is said once, and none is saved."""
        tensors = self._model.state_dict().values()
        weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        learning = sum(one.numel() * one.element_size() for one in self._model.parameters() if one.requires_grad)
        needed = weights * (2 if "best" in self._parts else 1) + 2 * learning
        at = next(folder for folder in (self.folder, *self.folder.absolute().parents) if folder.is_dir())
        free = max(shutil.disk_usage(at).free - SPARE, 0)
        if needed > free:
            self._full = True
            self._say(f"no state is saved: it takes {needed:,} bytes, and the disk of '{at}' has {free:,} to spare")
        return not self._full

    def save_weights(self, folder: Path) -> None:
        """Save the model's tensors into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(self._model.state_dict(), folder / WEIGHTS)

    def complete(self, folder: Path, started: float) -> None:
        """Add to what Trainer saved what it does not know of, and remove the state before.

        Args:
            started: when saving began, by `time.perf_counter`.
        """
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        torch.save({"parts": parts, "seconds": self.seconds, "resumed_steps": self._resumed}, folder / MORE)
        self._replace(folder, {})
        self._saved_at = time.perf_counter()
        self._took = self._saved_at - started

    def finish(self, report: HealReport) -> None:
        """Keep weights and report in place of the last state, if there is one: the next training may be killed."""
        if self._state is None or not self.has_room():
            return
        self.save_weights(self.folder / FINISHED)
        self._replace(self.folder / FINISHED, {"report": asdict(report)})

    def _replace(self, folder: Path, more: dict[str, Any]) -> None:
        replace_json(folder / ABOUT, {"training": self._about, "precisions": self._precisions, **more})
        self._state = folder
        for other in self.folder.iterdir():
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)

    def _load_weights(self, step: int) -> None:
        assert self._state is not None, "there is a state"
        for when, act in self._events:
            if when <= step:
                act()
        device = self._model.device
        self._model.load_state_dict(torch.load(self._state / WEIGHTS, map_location=device, weights_only=True))


def saving_of(
    model: "PreTrainedModel",
    data: TrainingData,
    schedule: Schedule,
    *,
    seed: int,
    events: Events,
) -> Saving | None:
    """Return what saves the state of the training that begins; None where nothing is saved.

    Args:
        schedule: its precision decided.
    """
    if data.place is None or data.place.state is None or not data.execution.resume or processes.count() > 1:
        return None
    tensors = "".join(f"{name} {tuple(one.shape)} {one.requires_grad}\n" for name, one in model.named_parameters())
    about = {
        **data.place.about,
        **asdict(schedule),
        "seed": seed,
        "number of rows": len(data.rows),
        "set of parameters": hashlib.sha256(tensors.encode()).hexdigest(),
        "steps at which layers go": [step for step, _ in events],
        "device": model.device.type if model.device.type == "cpu" else torch.cuda.get_device_name(model.device),
        **{f"version of {name}": version(name) for name in PACKAGES},
    }
    say = lambda line: data.on_progress(line, 0, 1)  # noqa: E731
    return Saving(data.place.state, about, model, data.place.precisions, events, say)


def saved_precision(data: TrainingData) -> str | None:
    """Return the precision of the training that comes next, where it was decided before the run was interrupted.

    A probe might decide otherwise now, of an earlier training too, from whose weights the next one began.
    """
    if data.place is None or not data.execution.resume:
        return None
    known = next((about for folder in data.place.all_states if (about := _newest(folder)[1])), None)
    if known is None or {name: known["training"].get(name) for name in data.place.about} != data.place.about:
        return None
    return dict(enumerate(known["precisions"])).get(len(data.place.precisions))


def _newest(folder: Path) -> tuple[Path | None, dict[str, Any] | None]:
    """Return the last state in a folder that is whole, and what it is about; None where there is none."""
    steps = [int(each.name.rpartition("-")[2]) for each in folder.glob("checkpoint-*")]
    for name in (FINISHED, *(f"checkpoint-{step}" for step in sorted(steps, reverse=True))):
        file = folder / name / ABOUT
        if file.is_file():
            return folder / name, json.loads(file.read_text(encoding="utf-8"))
    return None, None
