import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from commands import Command

from tiny_models import WORDS, tiny_checkpoint


@pytest.fixture
def command(monkeypatch, capsys, tmp_path) -> Command:
    """The command, run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Command(monkeypatch, capsys)


@pytest.fixture(scope="session")
def bert(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "bert", num_layers=6)


@pytest.fixture(scope="session")
def rows_csv(tmp_path_factory) -> Path:
    """Eighty rows whose label is told by their first word."""
    file = tmp_path_factory.mktemp("data") / "rows.csv"
    lines = ["text,other,kind,amount,gap"]
    for i in range(80):
        word = "ba" if i % 2 else "be"
        other = WORDS[i % 50]
        lines.append(f"{word} {other},{other},{'odd' if i % 2 else 'even'},{i / 8:.2f},{'x' if i < 79 else ''}")
    file.write_text("\n".join(lines) + "\n")
    return file
