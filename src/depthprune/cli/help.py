"""The help pages: options in groups, plain words for types, the terminal's width, and an example.

Plain text: rich's help takes half as long again to come up. The group of an option that is the field of a dataclass is
said there (`specs.options`), that of the others here, by name, for all commands that share them. No torch.
"""

import re
import shutil
from typing import Any

from typer.core import TyperCommand

NARROWEST = 60
GROUPS: dict[str, tuple[str, ...]] = {
    "Layers": (
        "strategy", "count", "layers", "keep", "threshold", "protect", "depths", "select", "scores", "search", "stack",
        "original_indices", "method", "objective", "token", "race", "no_reuse", "width", "generations", "adapter",
    ),
    "Data": (
        "task", "data", "dataset", "config", "split", "text_columns", "label_column", "task_metric", "samples",
        "held_out", "length", "max_length",
    ),
    "Bounds": ("max_loss", "max_parameters", "max_latency_ms", "speedup", "budget"),
    "Training": ("heal", "recipe", "epochs", "learning_rate", "precision", "teacher", "baseline"),
    "Running": (
        "device", "dtype", "layerwise", "cache_memory", "cache_dir", "workers", "cpus", "gpus", "executor", "address",
        "store", "force", "seed", "batch_size", "dry_run", "retry_failed", "verify", "no_profile", "quiet",
    ),
    "Output": ("output", "report", "figure", "plot", "format_name", "option", "claims", "markdown"),
    "Trust": ("allow_pickle", "trust_remote_code"),
}  # fmt: skip
EXAMPLES = {
    "run": "depthprune run bert-base-cased --task mrpc --strategy greedy --count 4 --output bert-8",
    "drop": "depthprune drop bert-base-cased --search found.json --count 4 --output bert-8",
    "score": "depthprune score bert-base-cased --method contribution --data mrpc --output scores.json --plot",
    "search": "depthprune search bert-base-cased --data text.txt --count 1-6 --output found.json",
    "auto": "depthprune auto bert-base-cased --task mrpc --max-loss 1.0 --output small --report report.html",
    "sweep": "depthprune sweep sweep.yaml --store runs",
    "status": "depthprune status --store runs",
    "clean": "depthprune clean --store runs --dry-run",
    "report": "depthprune report runs --output report.html",
    "inspect": "depthprune inspect bert-base-cased",
    "heal": "depthprune heal mpnet-6 --teacher all-mpnet-base-v2 --data lines.txt --task stsb --output mpnet-6-healed",
    "finetune": "depthprune finetune bert-8 --task mrpc --output bert-8-mrpc",
    "evaluate": "depthprune evaluate bert-8-mrpc --task mrpc",
    "export": "depthprune export bert-8 --format sentence-transformers --output bert-8-sentences",
    "probe": "depthprune probe bert-base-cased --task mrpc",
    "similarity": "depthprune similarity bert-base-cased bert-mrpc --task mrpc",
    "list": "depthprune list",
    "quickstart": "depthprune quickstart",
}
SHORT = {
    "auto": "Find the smallest model within a bound",
    "run": "Drop layers, fine-tune the rest, compare it with the full model",
    "search": "Try plans on data, and find the layers that cost least",
    "score": "Score layers on data: how much each one matters",
    "drop": "Write a shorter checkpoint, without training",
    "heal": "Train a cut checkpoint to do what the full model does",
    "finetune": "Fine-tune a checkpoint as it is",
    "evaluate": "Score a fine-tuned checkpoint",
    "export": "Write a finished checkpoint in another format",
    "sweep": "Run a grid: models, strategies, counts, tasks, seeds",
    "status": "Show the progress of the sweeps in a store",
    "clean": "Remove what a store no longer needs",
    "report": "Write a report of the runs in a store: a page or tables",
    "inspect": "Show stacks, parameters by layer, what strategies would drop",
    "probe": "Probe every layer: how much of a task it encodes",
    "similarity": "Compare a model before and after fine-tuning, by layer",
    "list": "List strategies, scores, searches, tasks and formats",
    "quickstart": "Compare strategies on a real small model, offline",
}
TYPES = {"int": "NUMBER", "float": "NUMBER", "str": "TEXT", "Path": "PATH", "path": "PATH", "bool": ""}


def settings() -> dict[str, Any]:
    """Return the settings of every help page."""
    width = max(shutil.get_terminal_size().columns, NARROWEST)
    return {"help_option_names": ["-h", "--help"], "max_content_width": width}


def sorted_commands(functions: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return commands in the order of the help: the ones to begin with first."""
    return sorted(functions.items(), key=lambda item: [*SHORT, item[0]].index(item[0]))


def group_of(param: Any) -> str:
    """Return the group that an option is shown in: its own, or the one that has its name."""
    if param.required:
        return "Required"
    own = getattr(param, "rich_help_panel", None)
    return own or next((group for group, names in GROUPS.items() if param.name in names), "Options")


def plain_type(name: str) -> str:
    """Return the type of an option as a word.

    >>> plain_type("--count <list[str]>"), plain_type("--budget INTEGER RANGE"), plain_type("--force")
    ('--count TEXT', '--budget NUMBER', '--force')
    """
    name = re.sub(r" ?<(?:list\[)?(\w+)\]?(?: \w+)*>", lambda found: f" {TYPES.get(found[1], found[1].upper())}", name)
    return re.sub(r"(?:INTEGER|FLOAT)(?: RANGE)?", "NUMBER", name).rstrip()


def plain_range(text: str) -> str:
    """Return a range in words.

    >>> plain_range("Examples per step.  [default: 32; x>=1]")
    'Examples per step.  [default: 32; 1 or more]'
    """
    return re.sub(r"x>=(\d+)(?:\.0)?", r"\1 or more", text)


class Command(TyperCommand):
    """A sub-command whose help is in groups."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the usage line's pieces."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options in groups, and an example."""
        params = self.get_params(ctx)
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Required": [], "Options": []}
        for param in params:
            record = param.get_help_record(ctx)
            if record is None:
                continue
            if param.param_type_name == "argument":
                groups["Arguments"].append((record[0].split()[0], plain_range(record[1])))
                continue
            groups.setdefault(group_of(param), []).append((plain_type(record[0]), plain_range(record[1])))
        order = ["Arguments", "Required", *GROUPS, "Options"]
        for group in order:
            if groups.get(group):
                with formatter.section(group):
                    formatter.write_dl(groups[group])
        if self.name in EXAMPLES:
            with formatter.section("Example"):
                formatter.write(f"  {EXAMPLES[self.name]}\n")
