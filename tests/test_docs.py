"""What the README and the examples say is run, and the generated table is fresh."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from depthprune.cli.listing import strategies_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_strategies_is_fresh():
    between = README.split("<!-- strategies: begin -->")[1].split("<!-- strategies: end -->")[0]

    assert between.strip() == strategies_table(), "run `depthprune list --markdown` and paste it"


def test_the_code_of_the_readme_runs(minilm, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)

    said = run_python(["-c", code], tmp_path)

    assert "4 layers left" in said
    assert re.search(r"0\.\d{3} against 0\.\d{3}; checkpoint in runs/[0-9a-f]{12}/model", said)


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_an_example_runs(script, minilm, tmp_path):
    assert run_python([str(script)], tmp_path).strip()


def test_every_command_that_the_readme_shows_exists():
    from typer.main import get_command

    from depthprune.cli.main import app

    shown = set(re.findall(r"^depthprune (\w+)", README, flags=re.MULTILINE))

    assert shown and shown <= set(get_command(app).commands)


def test_the_files_that_the_readme_names_are_there():
    named = set(re.findall(r"(?:docs|dev|examples|benchmarks|tests)/[\w./]*", README))

    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def run_python(arguments: list[str], folder: Path) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
