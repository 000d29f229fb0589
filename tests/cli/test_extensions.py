"""Other distributions add parts: an example package that is installed and used, and what is wrong with broken ones."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import depthprune
from depthprune import exporting, scores, strategies, tasks
from depthprune.errors import ExtensionError, UserError
from depthprune.evaluation import base as evaluation
from depthprune.healing import base as healing
from depthprune.healing.recipe import parse_recipe
from depthprune.plan import LayerPlan
from depthprune.scores.objectives import base as objectives
from depthprune.strategies import searched
from depthprune.tasks.metrics import base as metrics

EXAMPLE = Path(__file__).parents[2] / "examples" / "extension"
REGISTRIES = {
    "strategy": strategies.registry,
    "score": scores.registry,
    "search": searched.methods,
    "objective": objectives.registry,
    "healer": healing.registry,
    "recipe": healing.recipes,
    "task": tasks.registry,
    "metric": metrics.registry,
    "evaluation": evaluation.registry,
    "exporter": exporting.registry,
}
OF_THE_EXAMPLE = {
    "healer": "nothing",
    "task": "vowels",
    "metric": "error_rate",
    "objective": "changed",
    "exporter": "copy",
}


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The folder into which pip has installed the example package."""
    folder = tmp_path_factory.mktemp("extension")
    shutil.copytree(EXAMPLE, folder / "source")
    offline = ("--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--no-cache-dir")
    command = (sys.executable, "-m", "pip", "install", "--quiet", *offline, "--target", folder / "site")
    done = subprocess.run([*command, folder / "source"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture
def use(monkeypatch) -> Callable[[Path], None]:
    """Put a folder with distributions on the path and let every registry look for extensions anew, for one test."""
    modules = set(sys.modules)

    def use(folder: Path) -> None:
        for registry in REGISTRIES.values():
            registry.names()  # what is there without the folder
            monkeypatch.setattr(registry, "_parts", dict(registry._parts))
            monkeypatch.setattr(registry, "_extensions", [])
            monkeypatch.setattr(registry, "_discovered", False)
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))

    yield use
    for name in set(sys.modules) - modules:
        if name.startswith(("depthprune_example", "broken_")):
            del sys.modules[name]


@pytest.fixture
def example(use, site) -> None:
    use(site)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    from tiny_models import tiny_checkpoint  # imports torch, which most tests here do without

    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "bert", head="classification", num_layers=3)


def depthprune_list(path: Path) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(path), *sys.path])}
    command = [sys.executable, "-m", "depthprune", "list"]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment)


def test_an_installed_extension_is_listed(site):
    done = depthprune_list(site)
    listed = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert listed >= set(OF_THE_EXAMPLE.values()) and done.stderr == ""


def test_a_task_and_a_healing_method_of_an_extension_serve_a_sweep_a_report_and_a_run(
    example, command, classifier, tmp_path
):
    heal = {"steps": ["nothing"], "num_epochs": 1, "batch_size": 8}
    sweep = {"models": [str(classifier)], "tasks": ["vowels"], "strategies": ["top"], "counts": [1], "heal": heal}
    (tmp_path / "sweep.yaml").write_text(json.dumps(sweep | {"max_length": 8}))

    answer = command("sweep", "sweep.yaml", "--workers", 1, "--no-profile")
    assert answer.status == 0, answer
    records = [json.loads(file.read_text()) for file in tmp_path.glob("runs/*/record.json")]
    full, cut = sorted(records, key=lambda record: len(record["spec"]["drop"]["dropped"]))
    assert cut["spec"]["evaluation"]["task"] == "vowels" and cut["outcome"]["metrics"]["accuracy"]["examples"] == 16
    assert [step["method"] for step in cut["spec"]["heal"]["steps"]] == ["nothing"]
    assert full["outcome"]["heal"]["steps"] > 0 and cut["outcome"]["heal"]["steps"] == 0

    answer = command("report", "runs", "--output", "report.md")
    assert answer.status == 0, answer
    report = (tmp_path / "report.md").read_text()
    assert "vowels" in report and "nothing" in report

    more = ("--epochs", 1, "--batch-size", 8, "--max-length", 8, "--no-profile")
    answer = command(
        "run", classifier, "--task", "vowels", "--strategy", "top", "--count", 1, "--heal", "nothing", *more,
        "--output", "small",
    )  # fmt: skip
    assert answer.status == 0, answer
    assert len(list(tmp_path.glob("runs/*/record.json"))) == 2, "the runs of the sweep are these runs"

    answer = command("export", "small", "--format", "copy", "--output", "copied")
    assert answer.status == 0 and "the same, byte for byte" in answer.out, answer
    assert (tmp_path / "copied" / "model.safetensors").read_bytes() == (
        tmp_path / "small" / "model.safetensors"
    ).read_bytes()


def test_a_metric_of_an_extension_where_lower_is_better_is_minimised_and_orders_what_was_run(
    example, command, classifier, tmp_path
):
    sample = ("--data", "vowels", "--length", 8, "--samples", 16, "--task-metric", "error_rate")
    answer = command("search", classifier, *sample, "--count", 1, "--objective", "metric", "--output", "found.json")
    assert answer.status == 0, answer
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["objective"] == {"name": "metric", "unit": "error_rate"} and 0 <= found["plans"]["1"]["value"] <= 1

    how = ("--metric", "error_rate", "--max-length", 8, "--epochs", 0, "--no-profile")
    for layer in 0, 1:
        answer = command("run", classifier, "--task", "vowels", "--layers", layer, *how)
        said = " ".join(answer.out.split())  # the title of the table is folded
        assert answer.status == 0 and "(score: error_rate, lower is better; ms an example)" in said, answer
    cut = {}
    for file in tmp_path.glob("runs/*/record.json"):
        outcome = json.loads(file.read_text())["outcome"]
        assert outcome["primary"] == "error_rate" and outcome["metrics"]["error_rate"]["better"] == "lower"
        if outcome["plan"]["dropped"]:
            cut[outcome["metrics"]["error_rate"]["value"]] = outcome["plan"]["dropped"]
    assert cut, "the runs are recorded"
    assert f"{100 * min(cut):.2f}" in command("status", "--store", "runs").out


def test_an_objective_of_an_extension_is_what_a_search_minimises(example, command, classifier, tmp_path):
    sample = ("--data", "vowels", "--length", 8, "--samples", 8)
    answer = command("search", classifier, *sample, "--count", 1, "--objective", "changed", "--output", "found.json")
    assert answer.status == 0, answer
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["objective"] == {"name": "changed", "unit": "share of answers"} and found["full"] == 0


def distribution(folder: Path, kind: str, name: str, text: str, *, value: str = "") -> str:
    """Write a distribution with one module and one entry point; returns its name."""
    number = len(list(folder.glob("*.dist-info")))
    module = f"broken_{folder.parent.name.replace('-', '_')}_{number}"
    (folder / f"{module}.py").write_text(text)
    metadata = folder / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[depthprune.{kind}]\n{name} = {value or module}\n")
    return module


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


HEALER = "from depthprune.healing.base import Healed, healer, registry\n@healer({name!r})\ndef heal(*a, **k): {body}\n"
TWICE = HEALER.format(name="twice", body="...")


@pytest.mark.parametrize(
    ("asked", "text", "problem"),
    [
        ("here", "import nothing_of_that_name", "cannot be imported (ModuleNotFoundError: No module named 'nothing_o"),
        ("here", "def f(:", "cannot be imported (SyntaxError: invalid syntax"),
        ("here", "raise SystemExit(3)", "cannot be imported (SystemExit: 3)"),
        ("here", "x = 1", "registers no healer"),
        ("freeze", HEALER.format(name="freeze", body="..."), "registers the healer 'freeze', which 'depthprune' has"),
        ("twice", TWICE + TWICE, "registers the healer 'twice', which 'MODULE' has"),
        ("thing", HEALER + "registry.add('thing', 3)", "registers a int as the healer 'thing'; it has to be a Healer"),
        ("gone", HEALER.format(name="gone", body="...") + "1 / 0", "cannot be imported (ZeroDivisionError: division"),
    ],
)
def test_a_broken_extension_is_one_line_where_it_is_asked_for(asked, text, problem, use, folder, command, tmp_path):
    package = distribution(folder, "healer", "here", text.replace("{name!r}", "'other'").replace("{body}", "..."))
    use(folder)
    data = ("--task", "docstrings", "--layers", 0)
    answer = command("run", tmp_path / "model", *data, "--heal", asked)
    problem = problem.replace("MODULE", package)
    assert answer.status == 2 and answer.out == ""
    assert answer.err.startswith(
        f"depthprune: the extension '{package}' (entry point 'here' of depthprune.healer) {problem}"
    )
    assert answer.err.endswith("; fix or uninstall it\n") and answer.err.count("\n") == 1


def test_a_broken_extension_that_is_not_asked_for_is_a_warning_and_all_else_goes_on(use, folder, caplog):
    good = HEALER.format(name="good", body="return Healed(model=None)")
    distribution(folder, "healer", "good", good)
    package = distribution(folder, "healer", "bad", HEALER.format(name="finetune", body="...") + "1 / 0")
    use(folder)
    with caplog.at_level(logging.WARNING, logger="depthprune.registry"):
        assert [step.method for step in parse_recipe("freeze(embeddings=true)+good")] == ["freeze", "good"]
        assert dict(healing.registry.items())["good"].summary == ""
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith(f"depthprune: the extension '{package}' (entry point 'bad' of depthprune.healer) is left")
    assert "registers the healer 'finetune', which 'depthprune' has" in message and "\n" not in message


def test_list_shows_everything_else_and_a_line_about_a_broken_extension(folder):
    package = distribution(folder, "objective", "bad", "import nothing_of_that_name")
    done = depthprune_list(folder)
    assert "greedy" in done.stdout and "perplexity" in done.stdout
    assert done.stderr.count("\n") == 1 and f"'{package}'" in done.stderr


def test_the_parts_of_an_extension_that_fails_to_import_are_removed(use, folder):
    distribution(folder, "healer", "here", HEALER.format(name="half", body="...") + "1 / 0")
    use(folder)
    assert "half" not in healing.registry.names()
    with pytest.raises(ExtensionError, match="ZeroDivisionError"):
        healing.registry.get("half")


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("task", ("sweep", "--model", "bert", "--task", "bad", "--strategy", "top", "--count", 1)),
        ("score", ("sweep", "--model", "bert", "--task", "mrpc", "--strategy", "bad", "--count", 1)),
        ("search", ("run", "bert", "--task", "mrpc", "--strategy", "bad", "--count", 1)),
        ("score", ("drop", "MODEL", "--strategy", "bad", "--count", 1, "--output", "out")),
        ("score", ("score", "bert", "--method", "bad", "--data", "mrpc")),
        ("search", ("search", "bert", "--method", "bad", "--data", "mrpc", "--count", 1, "--output", "found.json")),
        ("exporter", ("export", "bert", "--format", "bad", "--output", "out")),
    ],
)
def test_every_command_names_the_extension_that_it_is_asked_for(kind, arguments, use, folder, command, classifier):
    package = distribution(folder, kind, "bad", "1 / 0")
    use(folder)
    answer = command(*(classifier if word == "MODEL" else word for word in arguments))
    error = f"the extension '{package}' (entry point 'bad' of depthprune.{kind}) cannot be imported (ZeroDivisionError"
    assert answer.status == 2 and error in answer.err and answer.err.count("depthprune: ") == 1, answer


def test_an_unknown_name_may_be_that_of_an_extension_that_is_left_out(use, folder):
    package = distribution(folder, "healer", "bad", "1 / 0")
    use(folder)
    with pytest.raises(UserError, match=f"no healing method or recipe is named 'other'.*'{package}'.*is left out"):
        parse_recipe("other")


def test_of_two_extensions_with_one_name_the_second_is_refused_by_the_name_of_the_first(use, folder):
    first = distribution(folder, "healer", "a", HEALER.format(name="same", body="..."))
    second = distribution(folder, "healer", "b", HEALER.format(name="same", body="..."))
    use(folder)
    with pytest.raises(ExtensionError, match=f"'{second}'.* registers the healer 'same', which '{first}' has"):
        healing.registry.get("same")


STRATEGY = "from depthprune.strategies.base import strategy\n@strategy('wrong', paper='')\ndef f(depth, count): {}\n"
SCORE = "from depthprune.scores import scoring_method\n@scoring_method('wrong', needs='pass', paper='')\n"
WRONG: dict[str, tuple[str, str, Callable[[Path, Path], Any]]] = {
    "strategy": (
        STRATEGY.format("return 'top'"),
        "returned str instead of tuple",
        lambda model, out: strategies.choose("wrong", 6, 2),
    ),
    "strategy of another count": (
        STRATEGY.format("return (0,)"),
        "drops 1 layers instead of 2",
        lambda model, out: strategies.choose("wrong", 6, 2),
    ),
    "score": (
        SCORE + "def f(sums): return [1, 2, 3]",
        "returned list instead of LayerScores",
        lambda model, out: depthprune.score(str(model), "wrong", "docstrings"),
    ),
    "search": (
        "from depthprune.strategies.searched import method\n@method('wrong')\ndef f(evaluator, space): return 3",
        "returned int instead of dict",
        lambda model, out: depthprune.search(
            str(model), "wrong", "docstrings", depthprune.SearchOptions((1,), objective="kl")
        ),
    ),
    "objective": (
        "from depthprune.scores.objectives.base import objective\n"
        "@objective('wrong', heads=('classes',))\ndef f(output, batch, head, full): return 0.5",
        "returned float instead of tuple",
        lambda model, out: depthprune.search(
            str(model), "greedy", "docstrings", depthprune.SearchOptions((1,), objective="wrong")
        ),
    ),
    "task": (
        "from depthprune.tasks import task\n@task('wrong')\ndef f(options): return []",
        "returned list instead of TaskData",
        lambda model, out: tasks.load_task("wrong"),
    ),
    "exporter": (
        "from depthprune.exporting import exporter\n@exporter('wrong')\ndef f(folder, target, options): return 'done'",
        "returned str instead of Exported",
        lambda model, out: exporting.export(model, out, "wrong"),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_extension_that_returns_something_of_another_type_is_named(case, use, folder, classifier, tmp_path):
    text, problem, call = WRONG[case]
    kind = case.split()[0]
    package = distribution(folder, kind, "wrong", text)
    use(folder)
    with pytest.raises(ExtensionError) as caught:
        call(classifier, tmp_path / "out")
    start = f"the {kind} 'wrong' of the extension '{package}' (entry point 'wrong' of depthprune.{kind})"
    assert str(caught.value) == f"{start} {problem}; fix or uninstall the extension"
    assert not (tmp_path / "out").exists()


def test_a_strategy_and_a_score_that_return_nonsense_leave_the_others_alone(use, folder, classifier, caplog):
    distribution(folder, "strategy", "wrong", STRATEGY.format("return 'top'"))
    distribution(folder, "score", "wrong", SCORE + "def f(sums): return [1, 2, 3]")
    use(folder)
    with caplog.at_level(logging.WARNING, logger="depthprune.registry"):
        assert strategies.same_choice(LayerPlan(6, (5,))) == ("even-alternate", "top")
        found = depthprune.score(str(classifier), "contribution", "docstrings")
    assert "angular" in found.by_method and "wrong" not in found.by_method
    assert len({record.getMessage() for record in caplog.records}) == len(caplog.records) == 2


def test_a_name_that_is_a_strategy_and_a_score_is_refused(use, folder, command, tmp_path):
    distribution(folder, "score", "top", SCORE.replace("wrong", "top") + "def f(sums): ...")
    use(folder)
    answer = command("run", tmp_path / "model", "--task", "docstrings", "--strategy", "top", "--count", 1)
    assert answer.status == 2 and "'top' is a strategy and a score; uninstall the extension" in answer.err
