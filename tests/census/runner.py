"""Run the census: each type in a process of its own, forked from one that has imported torch and transformers.

One line of JSON a finished type goes to the results file; what is there already is not done again.
"""

import json
import os
import resource
import signal
import tempfile
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from depthprune.errors import UserError
from depthprune.surgery import drop_layers, find_stacks
from depthprune.surgery.coverage import taken_as_covered

from .generating import trace
from .inputs import calls_that_run
from .oracle import CRASH, Bench, kinds, plans, try_stack
from .tiny import CannotBuildError, build, heads_that_read_states, model_classes, small_configs

GIB = 1 << 30
SEARCH_SECONDS = 45  # for a model that can be run


@dataclass(frozen=True)
class Options:
    """How a type is tried.

    Args:
        seconds: bound on its time.
        gib: bound on its address space.
        sets: larger sets of layers for each stack.
        singles: single layers for each stack; all if None.
        reloads: plans of a stack that are saved and loaded again; all if None.
        stream: whether one plan is cut as bytes too.
        drop: the surgery under test.
    """

    seconds: float = 240
    gib: float = 8
    sets: int = 4
    singles: int | None = None
    stream: bool = False
    reloads: int | None = None
    drop: Any = drop_layers


@taken_as_covered()  # a type that surgery refuses for want of a census would be covered by that refusal
def examine(model_type: str, options: Options, report: Any = lambda record: None) -> dict[str, Any]:
    """Try the surgery on a type and return what became of it; `report` gets what is known so far."""
    record: dict[str, Any] = {"type": model_type, "state": "not tried", "reason": "", "stacks": {}}
    found = _model_that_runs(model_type, record, report)
    if found is None:
        return record
    bench = Bench(*found, drop=options.drop)
    record.update(repeats=bench.repeats, generates=bench.generates, state="tried", reason="")
    refused = _try_stacks(bench, "", record, options, report)
    if refused:
        record.update(refused)
    for head in heads_that_read_states(model_type, bench.model):
        _try_head(model_type, head, record, options, report)
    return record


def _try_stacks(bench: Bench, head: str, record: dict[str, Any], options: Options, report: Any) -> dict[str, str]:
    """Try plans on every stack of a model; returns why there is none."""
    try:
        stacks = find_stacks(bench.model)
    except UserError as error:
        return {"state": "refused", "reason": str(error)}
    except Exception as error:
        return {"state": CRASH, "reason": trace(error)}
    for name, stack in stacks.items():
        tries = record["stacks"][f"{name} of {head}" if head else name] = {
            "class": type(bench.model).__name__,
            "depth_key": getattr(stack, "depth_key", ""),
            "depth": stack.depth,
            "paths": list(getattr(stack, "paths", None) or (stack.path,)),
            "plans": [],
        }
        chosen = plans(stack.depth, sets=options.sets, singles=options.singles)
        chosen += [plan for plan in kinds(bench.model.config, stack) if plan not in chosen]
        for result in try_stack(bench, stack, chosen, stream=options.stream, reloads=options.reloads):
            tries["plans"].append(result)
            report(record)
    return {}


def _try_head(model_type: str, head: Any, record: dict[str, Any], options: Options, report: Any) -> None:
    """Try the plans on a further class of a type, one that reads hidden states from the middle of a stack."""
    name = head.__name__
    about: dict[str, Any] = {}
    found = _model_that_runs(model_type, about, lambda _: None, head)
    if found is None or not found[1]:
        record.setdefault("heads", {})[name] = about.get("reason") or about.get("not_run") or "not run"
        return
    refused = _try_stacks(Bench(*found, drop=options.drop), name, record, options, report)
    if refused:
        record.setdefault("heads", {})[name] = refused["reason"]


def _model_that_runs(model_type: str, record: dict[str, Any], report: Any, head: Any = None) -> Any:
    """Return what builds a model and its calls: the first class and size that takes every kind of input, else the best.

    The best takes the most kinds of input; a model that takes none is still tried, without the oracles. With `head`,
    that class alone.
    """
    best, reasons, until = None, [], time.monotonic() + SEARCH_SECONDS
    try:
        classes = [head] if head else model_classes(model_type)
        if not classes:
            raise CannotBuildError("no class of models takes this configuration by itself")
        for how, config in small_configs(model_type, head.__name__ if head else ""):
            for model_class in classes[:3]:
                if best is not None and time.monotonic() > until:
                    break
                try:
                    model = build(model_class, config)
                except CannotBuildError as error:
                    reasons.append(str(error))
                    continue
                calls, reason = calls_that_run(model)
                if best is None or len(calls) > len(best[1]):
                    notes = {"class": model_class.__name__, "how": how, "calls": [_shapes(call) for call in calls]}
                    best = (lambda c=model_class, g=config: build(c, g), calls, {**notes, "not_run": reason})
                    record.update(best[2])
                    report(record)
                if calls and not reason:
                    return best[:2]
                if best[1]:  # another class is no better than another size
                    break
    except CannotBuildError as error:
        reasons.append(str(error))
    except Exception as error:
        reasons.append(trace(error))
    if best is None:
        record.update(state="not built", reason=reasons[0] if reasons else "")
        return None
    return best[:2]


def _shapes(value: Any) -> Any:
    """Put shapes in the place of tensors, wherever they are: a model can be given a list of them."""
    if isinstance(value, torch.Tensor):
        return list(value.shape)
    if isinstance(value, dict):
        return {key: _shapes(inner) for key, inner in value.items()}
    return [_shapes(inner) for inner in value] if isinstance(value, list | tuple) else value


def run_types(model_types: Iterable[str], results: Path, options: Options, *, jobs: int = 1, say: Any = None) -> None:
    """Try types in processes of their own and append a line of JSON for each to `results`."""
    waiting, running = list(model_types), {}
    results.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="census-run-") as scratch:
        while waiting or running:
            while waiting and len(running) < jobs:
                model_type = waiting.pop(0)
                file = Path(scratch) / f"{len(waiting)}.json"
                running[_fork(model_type, options, file)] = (model_type, file, time.monotonic())
            pid, status = os.waitpid(-1, os.WNOHANG)
            for other, (_, _, since) in running.items():
                if other != pid and time.monotonic() - since > options.seconds:
                    os.kill(other, signal.SIGKILL)
            if pid == 0:
                time.sleep(0.02)
                continue
            model_type, file, since = running.pop(pid)
            record = _read(file, model_type, status)
            record["seconds"] = round(time.monotonic() - since, 1)
            with results.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(record) + "\n")
            if say is not None:
                say(record)


def _fork(model_type: str, options: Options, file: Path) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid:
        return pid
    try:
        _child(model_type, options, file)
    finally:
        os._exit(0)


def _child(model_type: str, options: Options, file: Path) -> None:
    limit = int(options.gib * GIB)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    warnings.simplefilter("ignore")

    def write(record: dict[str, Any], done: bool = False) -> None:
        part = file.with_suffix(".part")
        part.write_text(json.dumps({**record, "done": done}), encoding="utf-8")
        os.replace(part, file)

    try:
        record = examine(model_type, options, write)
    except BaseException as error:
        record = json.loads(file.read_text()) if file.exists() else {"type": model_type, "stacks": {}}
        record.update(state="census error", reason=trace(error))
    write(record, done=True)


def _read(file: Path, model_type: str, status: int) -> dict[str, Any]:
    record = {"type": model_type, "state": "not tried", "reason": "", "stacks": {}, "done": False}
    if file.exists():
        record = json.loads(file.read_text(encoding="utf-8"))
    if not record.pop("done"):
        ended = "it took too long" if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL else "it died"
        record["ended"] = f"{ended} (wait status {status})"
        if not record["stacks"]:
            record["reason"] = f"{record['ended']}; {record['reason']}".removesuffix("; ")
    return record


def read_results(results: Path) -> dict[str, dict[str, Any]]:
    """Return the latest record of every type."""
    if not results.exists():
        return {}
    lines = results.read_text(encoding="utf-8").splitlines()
    return {record["type"]: record for record in map(json.loads, lines)}
