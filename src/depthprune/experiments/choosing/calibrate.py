"""A model with a calibration sample, ready for scoring and searching."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthprune.devices import resolve_device
from depthprune.errors import UserError
from depthprune.experiments.choosing.engine import Engine
from depthprune.loading import check_positions, load_to_score, load_tokenizer
from depthprune.plan import choose_stack
from depthprune.pooled.loading import load_pooled
from depthprune.sources import ModelSource
from depthprune.tasks import TaskData
from depthprune.tasks.data.calibration import CalibrationOptions, load_calibration
from depthprune.tasks.heads import fit_to_head, has_pooled_head

if TYPE_CHECKING:
    from depthprune.surgery.stacks import Stack


@dataclass
class Prepared:
    """A model with a sample.

    Args:
        pieces: the checkpoint, if layers are loaded one at a time.
        pooling: the model's pooling modes.
    """

    source: ModelSource
    model: Any
    tokenizer: Any
    stack: "Stack"
    calibration: Any
    engine: Engine
    pieces: Any = None
    pooling: tuple[str, ...] = ("mean",)
    head: str | None = field(init=False)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        from depthprune.scores.batches import head_of

        self.head = head_of(self.model)

    def fit_labels(self) -> None:
        """Map the labels of the sample to the outputs of a trained head.

        Raises:
            LoadError: if the labels cannot be matched with the head's outputs.
        """
        task = self.calibration.task
        if self.head != "classes" or task is None or task.outputs:
            return
        fitted = fit_to_head(TaskData(task, {}), self.source.config, self.source.name, needed=True)
        labels = [float(fitted.task.output_of(label)) for label in self.calibration.labels]
        self.calibration = replace(self.calibration, task=fitted.task, labels=labels)
        self.notes += fitted.notes

    def batches(self, *, predict: bool) -> Any:
        """Return the sample in batches."""
        from depthprune.scores.batches import Batches

        given = (self.calibration, self.model, self.tokenizer, self.engine.batch_size)
        return Batches(*given, predict=predict, pooling=self.pooling)

    def describe(self) -> dict[str, Any]:
        """Return the entries of a score file about the model."""
        return {
            "name": Path(self.source.name).name if self.source.commit is None else self.source.name,
            "identity": self.source.identity,
            "class": type(self.model).__name__,
            "weights": "fine-tuned" if self.head == "classes" else "pre-trained",
            "dtype": str(self.model.dtype).removeprefix("torch."),
        }


def prepare(
    source: ModelSource,
    options: CalibrationOptions,
    engine: Engine,
    stack: str | None,
    task_data: TaskData | None = None,
) -> Prepared:
    """Load a model and a sample; of the rows in `task_data` if they are given.

    Raises:
        UserError: for anything that the user can fix.
    """
    from depthprune.scores.batches import is_decoder
    from depthprune.surgery.modules import find_stacks
    from depthprune.surgery.stacks import depths_of
    from depthprune.tasks.pooling import read_pooling

    device = resolve_device(engine.device)
    _check_dtype(engine.dtype)
    tokenizer = load_tokenizer(source)
    pieces, fresh = None, list[str]()
    if engine.layerwise:
        if device != "cpu":
            raise UserError("--layerwise runs on the CPU; add --device cpu")
        from depthprune.checkpoints.piecewise import PiecewiseModel

        pieces = PiecewiseModel(source, stack, dtype=engine.dtype)
        model, chosen = pieces.model, pieces.stack
    else:
        import torch

        model, fresh = (load_pooled(source), fresh) if has_pooled_head(source.config) else load_to_score(source)
        if engine.dtype != "auto":
            model = model.to(getattr(torch, engine.dtype))
        model = model.eval().to(device)  # pyright: ignore[reportArgumentType]
        stacks = find_stacks(model)
        chosen = stacks[choose_stack(depths_of(stacks), stack, advice="say which one with --stack")]
    blocks = is_decoder(model) and tokenizer.cls_token_id is None
    calibration = load_calibration(options, tokenizer, blocks=blocks, task_data=task_data)
    check_positions(model, max(map(len, calibration.ids)), source.name, option="--length")
    prepared = Prepared(source, model, tokenizer, chosen, calibration, engine, pieces, read_pooling(source.path))
    if fresh:
        prepared.notes.append(
            f"'{fresh[0]}' is newly initialised: the checkpoint has no pooler ({len(fresh)} tensors), and no "
            "layer uses it"
        )
    return prepared


def open_states(engine: Engine) -> Any:
    import tempfile

    from depthprune.scores.states import StateStore

    return StateStore(engine.cache_memory, Path(engine.cache_dir or tempfile.gettempdir()))


def _check_dtype(dtype: str) -> None:
    if dtype not in ("auto", "float32", "bfloat16", "float16"):
        raise UserError(f"there is no dtype '{dtype}'; it is one of auto, float32, bfloat16, float16")
