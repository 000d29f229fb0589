"""The architecture, as a table that is checked: who imports whom, what stays free of torch, and how long things get.

Every import counts, those inside functions and under TYPE_CHECKING too.
"""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import depthprune

ROOT = Path(depthprune.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# What a module, or a folder of modules, may import from the package, beside its own folder.
STAGES = ("scores", "strategies", "surgery", "checkpoints", "tasks", "evaluation", "healing", "profiling", "exporting")
STAGES = (*STAGES, "pooled")
BASICS = ("errors", "registry", "optional", "plan", "specs", "sources", "loading", "output", "result_file", "quiet")
BASICS = (*BASICS, "processes", "devices", "arguments", "scratch")
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "errors": (),
    "arguments": ("errors",),
    "registry": ("errors",),
    "optional": ("errors",),
    "plan": ("errors",),
    "specs": ("errors", "plan"),
    "sources": ("errors",),
    "loading": ("errors", "sources"),
    "output": ("errors",),
    "scratch": ("output",),
    "result_file": ("errors",),
    "quiet": (),
    "processes": ("errors",),
    "devices": ("errors", "processes"),
    "__main__": ("cli",),
    "surgery": ("errors", "arguments", "plan", "sources", "loading"),
    "pooled": ("errors", "sources", "loading", "result_file", "specs", "tasks"),
    "checkpoints": (
        "errors",
        "arguments",
        "plan",
        "sources",
        "loading",
        "output",
        "result_file",
        "scratch",
        "surgery",
        "pooled",
    ),
    "scores": ("errors", "registry", "plan", "scratch", "surgery", "checkpoints", "tasks", "pooled"),
    "strategies": ("errors", "arguments", "registry", "plan", "scores"),
    "tasks": ("errors", "registry", "optional", "specs", "sources"),
    "evaluation": ("errors", "optional", "registry", "sources", "loading", "tasks", "pooled"),
    "healing": (
        "errors",
        "quiet",
        "optional",
        "registry",
        "processes",
        "result_file",
        "scratch",
        "plan",
        "specs",
        "surgery",
        "tasks",
    ),
    "profiling": ("errors",),
    "exporting": (
        "errors",
        "arguments",
        "registry",
        "optional",
        "output",
        "result_file",
        "sources",
        "specs",
        "surgery",
        "checkpoints",
        "pooled",
    ),
    "experiments": (*BASICS, *STAGES),
    "reporting": (
        "errors",
        "arguments",
        "result_file",
        "optional",
        "plan",
        "specs",
        "scores",
        "strategies",
        "tasks",
        "evaluation",
        "experiments",
    ),
    "cli": (*BASICS, *STAGES, "experiments", "reporting"),
    "__init__": (*BASICS, *STAGES, "experiments", "reporting"),  # the public names
}
TORCH_FREE = (
    "depthprune",
    "depthprune.errors",
    "depthprune.arguments",
    "depthprune.plan",
    "depthprune.registry",
    "depthprune.optional",
    "depthprune.specs",
    "depthprune.specs.options",
    "depthprune.sources",
    "depthprune.output",
    "depthprune.scratch",
    "depthprune.strategies",
    "depthprune.strategies.searched",
    "depthprune.strategies.scored",
    "depthprune.scores.methods.angular",
    "depthprune.reporting.drawings.canvas",
    "depthprune.reporting.drawings.charts",
    "depthprune.reporting.drawings.figures",
    "depthprune.reporting.page",
    "depthprune.reporting.analyses",
    "depthprune.reporting.tables.formats",
    "depthprune.experiments.sweeps.status",
    "depthprune.tasks.data.calibration",
    "depthprune.tasks.data.sentences",
    "depthprune.healing.recipe",
    "depthprune.healing.steps",
    "depthprune.healing.methods.adaptive_layers",
    "depthprune.healing.methods.layerdrop",
    "depthprune.experiments.depths.recipe",
    "depthprune.healing.execution.place",
    "depthprune.healing.execution.progress",
    "depthprune.healing.execution.reporting",
    "depthprune.healing.methods.compensate",
    "depthprune.healing.methods.distill",
    "depthprune.healing.methods.embedding",
    "depthprune.healing.methods.finetune",
    "depthprune.healing.methods.freeze",
    "depthprune.healing.methods.gradual",
    "depthprune.healing.methods.linear_patch",
    "depthprune.healing.methods.merge",
    "depthprune.healing.methods.lora",
    "depthprune.healing.methods.theseus",
    "depthprune.experiments.choosing.engine",
    "depthprune.checkpoints.adapters.config",
    "depthprune.checkpoints.adapters.cut",
    "depthprune.surgery.config.depth",
    "depthprune.checkpoints.card",
    "depthprune.surgery.census",
    "depthprune.checkpoints.companions",
    "depthprune.surgery.coverage",
    "depthprune.checkpoints.history",
    "depthprune.checkpoints.layout",
    "depthprune.checkpoints.cut",
    "depthprune.surgery.config.formulas",
    "depthprune.surgery.config.refusals",
    "depthprune.checkpoints.proof.client",
    "depthprune.checkpoints.drop",
    "depthprune.checkpoints.publish",
    "depthprune.surgery.config.quantised",
    "depthprune.surgery.config.entries",
    "depthprune.surgery.sized_tensors",
    "depthprune.surgery.stacks",
    "depthprune.checkpoints.stream",
    "depthprune.checkpoints.copying",
    "depthprune.tasks",
    "depthprune.tasks.heads",
    "depthprune.pooled.loading",
    "depthprune.tasks.metrics.perplexity",
    "depthprune.evaluation.measurement",
    "depthprune.evaluation.language_model",
    "depthprune.exporting",
    "depthprune.exporting.sentence_transformers",
    "depthprune.experiments.environment",
    "depthprune.experiments.store.store",
    "depthprune.experiments.store.leases",
    "depthprune.experiments.sweeps.expansion",
    "depthprune.experiments.sweeps.runner",
    "depthprune.experiments.sweeps.grid",
    "depthprune.experiments.sweeps.executors.local",
    "depthprune.experiments.sweeps.executors.ray",
    "depthprune.quiet",
    "depthprune.processes",
    "depthprune.devices",
    "depthprune.experiments.store.records",
    "depthprune.experiments.specification",
    "depthprune.cli.main",
)
LONGEST_FILE, LONGEST_FUNCTION = 300, 60
FULLEST_FOLDER = 15  # files; cli alone has more, one a sub-command
DEFENCE = re.compile(r"#.*\blong because\b")


def unit_of(file: Path) -> str:
    """Return the row of the table that `file` belongs to."""
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(file: Path, root: Path = ROOT) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name inside the package) for every import in `file` of something in the package."""
    package = ["depthprune", *file.relative_to(root).parts[:-1]]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (start, node.module) if part)
            names = [f"{module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and re.search(r"import_module$|__import__$", ast.unparse(node.func)):
            first = node.args[0] if node.args else None
            names = [first.value] if isinstance(first, ast.Constant) and isinstance(first.value, str) else []
        for name in names:
            head, _, inside = name.partition(".")
            if head == "depthprune":
                yield node.lineno, inside


def offences(file: Path, root: Path = ROOT) -> list[str]:
    """Return the imports in `file` that the table does not allow."""
    unit = file.relative_to(root).parts[0].removesuffix(".py")
    allowed = {unit, *MAY_IMPORT.get(unit, ())}
    return [
        f"{file.relative_to(root)}:{line} imports depthprune.{name}"
        for line, name in imports(file, root)
        if name.split(".")[0] not in allowed
    ]


def test_every_module_has_a_row_in_the_table_and_every_row_a_module():
    units = {unit_of(file) for file in FILES}
    assert units == set(MAY_IMPORT)
    assert {name for row in MAY_IMPORT.values() for name in row} <= units


def test_the_table_has_no_circles():
    done: set[str] = set()
    while len(done) < len(MAY_IMPORT):
        ready = {unit for unit, row in MAY_IMPORT.items() if unit not in done and set(row) <= done}
        assert ready, f"{sorted(set(MAY_IMPORT) - done)} import each other"
        done |= ready


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_module_imports_only_what_the_table_allows(file):
    assert offences(file) == []


@pytest.mark.parametrize(
    "statement",
    [
        "import depthprune.cli.main",
        "from depthprune.cli import main",
        "from depthprune.cli.main import app",
        "from depthprune import cli",
        "from depthprune import LayerPlan",
        "from .. import cli",
        "from ..cli.main import app",
        "def f():\n    from depthprune.cli import main",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from depthprune.cli import main",
        "import importlib\nimportlib.import_module('depthprune.cli.main')",
    ],
)
def test_a_forbidden_import_is_seen_in_every_form(statement, tmp_path):
    file = tmp_path / "tasks" / "new.py"
    file.parent.mkdir()
    file.write_text("from depthprune.errors import UserError\nfrom .base import task\n" + statement)
    assert len(offences(file, tmp_path)) == 1


def module_of(file: Path, root: Path) -> str:
    """Return the dotted name of a file inside the package; a package's __init__ has the package's."""
    return ".".join(file.relative_to(root).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


def circles(root: Path) -> list[list[str]]:
    """Return the import circles among the modules under `root`, each as the modules on it."""
    files = {module_of(file, root): file for file in sorted(root.rglob("*.py"))}
    arrows = {
        module: {known for _, name in imports(file, root) if (known := _known(name, files)) not in (None, module)}
        for module, file in files.items()
        if module  # the public names of the package itself are resolved on first use
    }
    found: list[list[str]] = []
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> None:
        if module in path:
            found.append(path[path.index(module) :])
        elif module not in done:
            for other in sorted(arrows.get(module, ())):
                walk(other, [*path, module])
            done.add(module)

    for module in arrows:
        walk(module, [])
    return found


def _known(name: str, files: Mapping[str, Path]) -> str | None:
    """Return the module that an imported name is in: the longest beginning that is one."""
    parts = name.split(".")
    return next((m for i in range(len(parts), 0, -1) if (m := ".".join(parts[:i])) in files), None)


def test_there_is_no_import_circle():
    assert circles(ROOT) == []


def test_an_import_circle_is_found_inside_functions_too(tmp_path):
    (tmp_path / "a.py").write_text("from depthprune.b import f\n")
    (tmp_path / "b.py").write_text("def f():\n    from depthprune import c\n")
    (tmp_path / "c.py").write_text("import depthprune.errors\n")
    assert circles(tmp_path) == []
    (tmp_path / "c.py").write_text("from depthprune.a import g\n")
    assert circles(tmp_path) == [["a", "b", "c"]]


def test_a_folder_has_about_a_dozen_files():
    counts = Counter(file.parent.relative_to(ROOT) for file in FILES)
    assert {folder: n for folder, n in counts.items() if n > FULLEST_FOLDER} == {Path("cli"): counts[Path("cli")]}


@pytest.mark.parametrize("module", TORCH_FREE)
def test_importing_it_imports_neither_torch_nor_transformers(module):
    code = f"import sys, {module}; print(sorted({{'torch', 'transformers'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_public_names_are_all_there():
    assert set(dir(depthprune)) == set(depthprune.__all__)
    assert all(getattr(depthprune, name) is not None for name in depthprune.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'prune'"):
        _ = depthprune.prune


def too_long(text: str) -> list[str]:
    """Return what in a module is too long and has no comment with `long because` to defend it.

    A function's lines are those of its statements: signature and docstring are not what makes it hard to follow.
    """
    lines, found = text.splitlines(), []
    inside: set[int] = set()
    for function in ast.walk(ast.parse(text)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        assert function.end_lineno is not None
        own = range(function.lineno - 1, function.end_lineno)
        inside.update(own)
        statements = function.body[1:] if ast.get_docstring(function) else function.body
        length = function.end_lineno - statements[0].lineno + 1 if statements else 0
        if length > LONGEST_FUNCTION and not any(DEFENCE.search(lines[i]) for i in own):
            found.append(f"{function.name} has {length} lines")
    defended = any(DEFENCE.search(line) for i, line in enumerate(lines) if i not in inside)
    return found if len(lines) <= LONGEST_FILE or defended else [*found, f"the file has {len(lines)} lines"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_and_functions_are_short_or_say_why_not(file):
    assert too_long(file.read_text(encoding="utf-8")) == []


def test_what_is_too_long_is_found_unless_it_is_defended():
    head, body = 'def f():\n    """Do nothing."""\n', "    pass\n" * 60
    assert too_long(head + body) == []
    assert too_long(head + body + "    pass\n") == ["f has 61 lines"]
    assert too_long(head + "    # long because: a table\n" + body + "    pass\n") == []
    assert too_long("x = 1\n" * 300) == []
    assert too_long("x = 1\n" * 301) == ["the file has 301 lines"]
    assert too_long("# long because: a table\n" + "x = 1\n" * 301) == []
    assert too_long("def f():\n    pass  # long because\n" + "x = 1\n" * 301) == ["the file has 303 lines"]
