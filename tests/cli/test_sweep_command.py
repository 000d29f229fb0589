"""`depthprune sweep` and `search`: what is refused, and what is said of runs that fail."""

import json

import pytest

from depthprune.experiments.store.store import Store
from depthprune.experiments.sweeps.rows import SWEEPS
from without_root import folder_without_root


@pytest.fixture
def spec(bert, rows_csv, tmp_path):
    content = {
        "models": [str(bert)], "tasks": ["custom"], "dataset": str(rows_csv), "text_columns": ["text"],
        "label_column": "kind", "strategies": ["top"], "counts": [1], "heal": {"num_epochs": 0}, "max_length": 8,
    }  # fmt: skip
    (tmp_path / "s.yaml").write_text(json.dumps(content))
    return tmp_path / "s.yaml"


@pytest.mark.parametrize(
    "options, named",
    [
        (["--epochs", "5"], "--epochs"),
        (["--max-length", "128", "--batch-size", "32"], "--batch-size, --max-length"),
        (["--dataset", "other.csv", "--model", "other"], "--model, --dataset"),
    ],
)
def test_options_that_a_file_would_override_are_refused_by_name(options, named, command, spec, tmp_path):
    answer = command("sweep", spec, *options, "--store", tmp_path / "runs", "--dry-run")
    assert answer.status == 2
    assert answer.err.startswith(f"depthprune: '{spec}' defines the sweep, and {named} would change nothing;")


def test_options_about_how_a_file_is_carried_out_go_with_it(command, spec, tmp_path):
    answer = command("sweep", spec, "--store", tmp_path / "runs", "--workers", 2, "--device", "cpu", "--dry-run")
    assert answer.status == 0, answer.err
    assert not (tmp_path / "runs").exists()


def test_several_files_are_one_sweep(command, spec, tmp_path):
    more = json.loads(spec.read_text()) | {"seeds": [7]}
    (tmp_path / "more.yaml").write_text(json.dumps(more))
    answer = command("sweep", spec, tmp_path / "more.yaml", "--store", tmp_path / "runs", "--dry-run")
    assert answer.out.startswith("4 cells, 4 runs"), answer.err


def test_a_sweep_on_a_store_that_cannot_be_written_is_one_line(command, spec):
    with folder_without_root() as folder:
        (folder / "closed").mkdir(mode=0o500)
        readable = folder / "s.yaml"
        readable.write_text("{models: [none], tasks: [mrpc], strategies: [top], counts: [1]}")
        answer = command("sweep", readable, "--store", folder / "closed" / "runs")
    assert answer.status == 2 and answer.err.count("\n") == 1
    assert "closed/runs' cannot be written (Permission denied); choose another --store" in answer.err


def test_a_broken_record_is_named_and_nobody_is_sent_to_a_file_that_is_not_there(command, spec, tmp_path):
    store = Store(tmp_path / "runs")
    assert command("sweep", spec, "--store", store.root, "--dry-run").status == 0
    broken = []
    for digest in _digests(spec, store):
        store.folder(digest).mkdir(parents=True)
        (store.folder(digest) / "record.json").write_text("{")
        broken.append(digest)
    answer = command("sweep", spec, "--store", store.root)
    assert answer.status == 2
    last = answer.err.splitlines()[-1]
    assert f"2 of 2 runs failed: {broken[0]}: '{store.folder(broken[0]) / 'record.json'}' is not the record of" in last
    assert "failure.json" not in answer.err and "--retry-failed" not in answer.err
    assert {file.name for file in store.root.iterdir()} == {SWEEPS, *broken}


def _digests(spec, store):
    from depthprune.experiments.sweeps.choices import stored_scorer
    from depthprune.experiments.sweeps.expansion import expand
    from depthprune.experiments.sweeps.grid import read_sweep

    return list(expand(read_sweep(spec), stored_scorer(store.root, "cpu", take=False)).jobs)


@pytest.mark.parametrize("count", ["abc", "0", "3-1", "1,x", "-2"])
def test_a_search_for_no_number_of_layers_says_what_a_count_is(count, command, tmp_path):
    answer = command("search", "model", "--data", "text.txt", f"--count={count}", "--output", tmp_path / "f.json")
    assert answer.status == 2
    said = f"--count {count} is not how many layers to drop; write a number such as 3, or 1-4"
    assert answer.err == f"depthprune: {said}\n"
