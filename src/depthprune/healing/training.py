"""Train a model on a task with `transformers.Trainer`: what the healing methods that train have in common.

Batches are padded to their longest row, and hold rows of similar length if that is asked for; in bfloat16 where a short
probe finds that faster. The defaults are the example of the paper's authors: AdamW, linear decay, no warm-up.
"""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from depthprune import processes
from depthprune.errors import UserError
from depthprune.healing.base import UNTRAINED, HealReport, OnStep, Schedule, TrainingData
from depthprune.healing.execution.history import History
from depthprune.healing.execution.reporting import check_reporters, log_into
from depthprune.healing.execution.resuming import Saving, saved_precision, saving_of
from depthprune.healing.frozen import frozen_layers
from depthprune.healing.precision import faster_precision
from depthprune.healing.selection import BestEpoch, split_rows
from depthprune.healing.trainer import DivergedError, HealingTrainer, Loss, Steps
from depthprune.scratch import scratch_folder
from depthprune.specs import PRECISIONS

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def train(
    model: "PreTrainedModel",
    data: TrainingData,
    schedule: Schedule,
    *,
    loss: Loss | None = None,
    reads: Sequence[int] | None = None,
    seed: int = 42,
    events: Sequence[tuple[int, Callable[[], None]]] = (),
    on_step: OnStep | None = None,
) -> HealReport:
    """Train the parameters of `model` that are not frozen, in place.

    Args:
        model: with a head for the labels in the rows; trained where its weights are.
        data: rows with labels. A loss of one's own gets every column of them but `length`, and needs no labels.
        schedule: how long and how fast. The precision `auto` is decided here, for this training alone; what compares
            trainings decides once for all (`experiments.measured`).
        loss: called with the model, in training mode, and a padded batch; returns the batch's loss, a scalar. The
            model's own loss if None. Where it remembers something from batch to batch, it has `state_dict` and
            `load_state_dict`, and a training that is resumed goes on with that (`healing.execution.resuming`).
        reads: the hidden states that `loss` reads, as `output_hidden_states` counts them; None if it reads more
            of what is inside the model: then frozen layers are not computed once for all epochs (`healing.frozen`).
        seed: of the order of the rows, of dropout, and of which rows are held out.
        events: (step, what to do to the model after it), such as dropping a layer.
        on_step: called after each optimiser step.

    Raises:
        UserError: a precision that does not exist, a batch that the processes of a torchrun cannot share, or a loss
            that is not finite, where no better epoch was kept; the message names the step.
    """
    _check(model, data, schedule)
    if schedule.num_epochs == 0:
        return UNTRAINED
    schedule = decided(schedule, model, data, loss)
    if data.place is not None:
        data.place.next(schedule.precision)
    saving = saving_of(model, data, schedule, seed=seed, events=events)
    if saving is not None and (known := saving.finished()) is not None:
        return known
    history, rows, best = History(data.on_log), data.rows, None
    if schedule.validation_fraction:
        rows, best = _best_epoch(model, data, schedule, seed, events, history)
    trained = _sharded_copy(model, events) if processes.uses_fsdp() else model
    with scratch_folder("training") as scratch, frozen_layers(trained) as frozen:
        rows, loss = frozen.compute_once(replace(data, rows=rows), schedule, loss, reads, scratch, drops=bool(events))
        settings = _arguments(
            data,
            schedule,
            output_dir=str(scratch),
            use_cpu=model.device.type == "cpu",
            dataloader_pin_memory=model.device.type != "cpu",
            bf16=schedule.precision == "bfloat16",
            seed=seed,
            remove_unused_columns=loss is None,
            ddp_find_unused_parameters=bool(events),  # those of layers that went
        )
        trainer = HealingTrainer(
            loss=loss,
            lengths=rows["length"][:] if schedule.similar_lengths else None,
            examples_a_step=schedule.batch_size,
            history=history,
            saving=saving,
            model=trained,
            args=settings,
            train_dataset=rows.remove_columns("length"),
            data_collator=DataCollatorWithPadding(data.tokenizer),
        )
        _watch(trainer, data, Steps(on_step, events), best, saving)
        if saving is not None:
            saving.include(history=history, best=best, loss=loss)
        started = time.perf_counter()
        with _checkpointing(trained, on=data.execution.gradient_checkpointing):
            diverged_step = _run(trainer, best, saving)
        seconds = (time.perf_counter() - started if saving is None else saving.seconds) + frozen.seconds
        if trained is not model:
            _take_weights(model, trainer)
        else:
            # accelerate leaves its autocast on model.forward, and scores would be taken in bfloat16 without a word.
            trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    steps = trainer.state.global_step
    losses: Any = trainer.accelerator.gather(torch.tensor([history.mean_loss(steps)], device=trainer.args.device))
    examples = len(rows) * schedule.num_epochs * steps / trainer.state.max_steps
    found: dict[str, Any] = {"history": tuple(history.points), "frozen": frozen.how}
    found |= {"resumed_steps": saving.resumed_steps if saving is not None else ()}
    report = HealReport(seconds, examples / seconds, steps, losses.mean().item(), schedule.precision, **found)
    if best is not None:
        report = replace(report, best_step=best.step, validation_score=best.score, diverged_step=diverged_step)
    if saving is not None:
        saving.finish(report)
    return report


def _watch(
    trainer: HealingTrainer, data: TrainingData, steps: Steps, best: BestEpoch | None, saving: Saving | None
) -> None:
    """Let what follows a training see its steps: an epoch is measured before its state is saved."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    for callback in (steps, best, saving):
        if callback is not None:
            trainer.add_callback(callback)
    if data.place is not None:
        log_into(trainer, data.place.logs)


def _check(model: "PreTrainedModel", data: TrainingData, schedule: Schedule) -> None:
    """Refuse what cannot be trained.

    Raises:
        UserError: a precision that does not exist, a batch that cannot be shared or split, a model that keeps all its
            activations, or somewhere to report to that is not there.
    """
    if schedule.precision not in PRECISIONS:
        raise UserError(f"there is no precision '{schedule.precision}'; it is one of {', '.join(PRECISIONS)}")
    batch_size = schedule.batch_size
    if batch_size % processes.count():
        raise UserError(f"{processes.count()} processes cannot share a batch of {batch_size}; give a multiple")
    shares = processes.count() * schedule.accumulation
    if batch_size % shares:
        raise UserError(f"a batch of {batch_size} cannot be split into {shares} parts; give a multiple of {shares}")
    if data.execution.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise UserError(
            f"a {type(model).__name__} keeps the activations of all its layers, since transformers has no gradient "
            "checkpointing for it; leave --gradient-checkpointing out, and save memory with --accumulation"
        )
    check_reporters(data.execution.report_to)


@contextmanager
def _checkpointing(model: "PreTrainedModel", *, on: bool) -> Iterator[None]:
    """Let a model compute its activations again in the backward pass, while the context lasts."""
    if not on:
        yield
        return
    # transformers 5.24 renamed it, and warns of the old name.
    name = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    # The reentrant kind needs inputs with gradients, which frozen embeddings do not give.
    getattr(model, f"{name}_checkpointing_enable")({"use_reentrant": False})
    try:
        yield
    finally:
        getattr(model, f"{name}_checkpointing_disable")()


def decided(schedule: Schedule, model: "PreTrainedModel", data: TrainingData, loss: Loss | None = None) -> Schedule:
    """Return a schedule whose precision is decided: what is faster on the first rows, where it was `auto`.

    Args:
        loss: as `train` gets it.
    """
    if schedule.precision != "auto":
        return schedule
    if (known := saved_precision(data)) is not None:
        return replace(schedule, precision=known)
    probe = faster_precision(model, first_batch(data.tokenizer, data.rows, schedule.batch_size), loss)
    return replace(schedule, precision=processes.agree(probe.precision))


def _run(trainer: HealingTrainer, best: BestEpoch | None, saving: Saving | None) -> int | None:
    """Train; return the step at which the loss was not finite, where the best epoch's weights make up for it.

    Raises:
        DivergedError: the loss was not finite, and there are no such weights.
    """
    diverged_step, checkpoint = None, saving.checkpoint if saving is not None else None
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except DivergedError as error:
        if best is None or best.step is None:
            raise
        diverged_step = error.step
    if best is not None:
        best.restore()
    return diverged_step


def _best_epoch(
    model: "PreTrainedModel",
    data: TrainingData,
    schedule: Schedule,
    seed: int,
    events: Sequence[tuple[int, Any]],
    history: History,
) -> tuple[Dataset, BestEpoch]:
    """Return the rows to train on without those that are held out, and what chooses an epoch by these.

    Raises:
        UserError: nothing is measured on such rows, there are too few, or FSDP takes the model apart.
    """
    measure = data.measure
    if measure is None:
        raise UserError("there is no metric to choose an epoch by; leave --validation-fraction out")
    if processes.uses_fsdp():
        raise UserError("an epoch cannot be chosen while FSDP shards the model; leave --validation-fraction out")
    rows, held_out = split_rows(data.rows, schedule.validation_fraction, seed, data.num_unlabelled)
    last = max((step for step, _ in events), default=0)
    look = lambda trained: measure(trained, held_out)  # noqa: E731
    return rows, BestEpoch(model, look, schedule.patience, last, history.scored)


def _arguments(data: TrainingData, schedule: Schedule, **chosen: Any) -> TrainingArguments:
    arguments = TrainingArguments(
        **chosen,
        num_train_epochs=schedule.num_epochs,
        per_device_train_batch_size=schedule.batch_size // (processes.count() * schedule.accumulation),
        gradient_accumulation_steps=schedule.accumulation,
        learning_rate=schedule.learning_rate,
        weight_decay=schedule.weight_decay,
        warmup_steps=schedule.warmup,  # below 1 it is a fraction
        lr_scheduler_type="linear",
        # True multiplies a classifier's loss and gradients by the number of processes (transformers 5.23).
        average_tokens_across_devices=False,
        ddp_timeout=processes.WAIT_HOURS * 3600,
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="no",
        report_to=list(data.execution.report_to) or "none",
        run_name=data.place.name if data.place is not None else None,
        disable_tqdm=True,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # several GPUs in one process are not asked for; torchrun uses them better
    return arguments


def _sharded_copy(model: "PreTrainedModel", events: Sequence[Any]) -> "PreTrainedModel":
    """Return a copy that FSDP may take apart; the model itself stays whole, where it is.

    Raises:
        UserError: if layers are to be dropped while it is sharded.
    """
    if events:
        raise UserError("layers cannot go one by one while FSDP shards the model; use torchrun without FSDP")
    return copy.deepcopy(model)


def _take_weights(model: "PreTrainedModel", trainer: Trainer) -> None:
    """Put the weights of a model that FSDP took apart back into the whole one. Not tested: it needs several GPUs."""
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if processes.is_first():
        model.load_state_dict(state)


def first_batch(tokenizer: "PreTrainedTokenizerBase", rows: Dataset, batch_size: int) -> dict[str, Any]:
    """Return the first rows as a batch of a training, labels included."""
    first = rows.remove_columns("length").select(range(min(batch_size, len(rows)))).to_list()
    return dict(DataCollatorWithPadding(tokenizer)(first))
