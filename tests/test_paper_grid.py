"""benchmarks/paper_grid.py: what it is told wrongly is one line, before anything is written."""

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "paper_grid.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("paper_grid", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "rows, message",
    [
        ("sts2=12000", "--rows sts2=12000: 'sts2' is none of the tasks here (sst2, mrpc); write TASK=NUMBER"),
        ("12000", "'12000' is none of the tasks here"),
        ("sst2=many", "--rows sst2=many: 'many' is no number of rows"),
        ("sst2", "--rows sst2: '' is no number of rows"),
        ("sst2=0", "'0' is no number of rows"),
        ("sst2=9", "--rows sst2=9: its train split has 8 rows; ask for as many or fewer"),
    ],
)
def test_a_part_of_train_that_is_named_wrongly_is_refused_in_one_line(rows, message, script, tmp_path, monkeypatch):
    from datasets import Dataset

    for split in ("train", "validation"):
        (tmp_path / "glue" / "sst2").mkdir(parents=True, exist_ok=True)
        Dataset.from_dict({"sentence": ["ba"] * 8}).to_parquet(tmp_path / "glue" / "sst2" / f"{split}-0.parquet")
    given = ["rates", "model", "--dataset", str(tmp_path / "glue"), "--output", str(tmp_path / "grid"), "--rows", rows]
    monkeypatch.setattr(sys, "argv", ["paper_grid.py", *given, "--tasks", "sst2", "mrpc"])

    with pytest.raises(SystemExit) as refused:
        script.main()

    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "grid").exists()
