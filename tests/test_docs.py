"""What the README and the examples say is run, and the generated table is fresh."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from depthprune.cli.listing import strategies_table
from depthprune.tasks import stdlib_docstrings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
(CODE,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_table_of_strategies_is_fresh():
    between = README.split("<!-- strategies: begin -->")[1].split("<!-- strategies: end -->")[0]

    assert between.strip() == strategies_table(), "run `depthprune list --markdown` and paste it"


def check_what_the_code_says(said: str) -> None:
    assert "4 layers left" in said
    assert re.search(r"0\.\d{3} against 0\.\d{3}; checkpoint in runs/[0-9a-f]{12}/model", said)


def test_the_code_of_the_readme_runs_on_a_twentieth_of_its_rows(minilm, tmp_path, monkeypatch, capsys):
    for name in "TRAIN_PER_LABEL", "VALIDATION_PER_LABEL":
        monkeypatch.setattr(stdlib_docstrings, name, getattr(stdlib_docstrings, name) // 20)
    monkeypatch.chdir(tmp_path)

    exec(compile(CODE, "README.md", "exec"), {})

    check_what_the_code_says(capsys.readouterr().out)


@pytest.mark.slow
def test_the_code_of_the_readme_runs(minilm, tmp_path):
    check_what_the_code_says(run_python(["-c", CODE], tmp_path))


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_an_example_runs(script, minilm, tmp_path):
    assert run_python([str(script)], tmp_path).strip()


def test_every_command_that_the_readme_shows_exists():
    from typer.main import get_command

    from depthprune.cli.main import app

    shown = set(re.findall(r"^depthprune (\w+)", README, flags=re.MULTILINE))

    assert shown and shown <= set(get_command(app).commands)


def test_the_files_that_the_readme_names_are_there():
    named = set(re.findall(r"(?:docs|dev|examples|benchmarks|tests)/[\w./-]*", README))

    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_readme_of_pypi_has_no_picture_and_no_link_that_leads_nowhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    text = README
    for each in project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(each["pattern"], each["replacement"], text)
    links = re.findall(r"\]\(([^)]+)\)", text)

    assert "<picture>" in README and "](docs/" in README
    assert "<img" not in text and "picture>" not in text
    assert links and [link for link in links if not link.startswith("https://")] == []
    assert "docs/results.md says how many layers" in " ".join(text.split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_or_picture_of_the_docs_leads_to_a_file_and_its_heading(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(
        r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", re.sub(r"```.*?```", "", text, flags=re.S)
    ):
        path, _, anchor = "".join(target).partition("#")
        if not path.startswith("http"):
            file = page.parent / path if path else page
            assert file.exists(), f"{page.name} names {path}"
            assert not anchor or anchor in anchors(file), f"{page.name} names #{anchor}"


def anchors(file: Path) -> set[str]:
    """Return the names that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def run_python(arguments: list[str], folder: Path) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
