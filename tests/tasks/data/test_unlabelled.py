"""Rows without labels beside a task's own: where they come from, and which are left out."""

import pytest
from datasets import Dataset

from depthprune.errors import LoadError, UserError
from depthprune.tasks import Task, TaskData, TaskOptions
from depthprune.tasks.data.unlabelled import drawn_rows, read_unlabelled, transfer_set
from depthprune.tasks.glue import GLUE

LINE = ("a man sleeps", "a cat runs", "it rains", "he reads")


def pairs_of(*rows: tuple[str, str]) -> Dataset:
    one, other = zip(*rows, strict=True)
    return Dataset.from_dict({"sentence1": one, "sentence2": other, "label": [0] * len(rows)})


def mrpc(dataset: str | None = None) -> TaskData:
    splits = {"train": pairs_of(('She said: "no".', "No.")), "validation": pairs_of(("It rains.", "Rain falls."))}
    return TaskData(GLUE["mrpc"], splits, options=TaskOptions(dataset))


def single() -> TaskData:
    rows = Dataset.from_dict({"text": ["one"], "label": [0]})
    return TaskData(Task("t", ("text",), "label", ("a", "b"), ("accuracy",)), {"train": rows, "validation": rows})


def test_rows_of_the_evaluation_and_of_the_training_are_left_out_whatever_their_spaces_and_quotation_marks():
    rows = [
        ("it rains .", "Rain falls ."),
        ("rain falls", "it rains"),  # a pair of the evaluation in the other order
        ("She said : `` no '' .", "No ."),
        ("No.", "She said: no."),  # one of the training in the other order is another row
        ("It rains.", "Snow falls."),
        ("it rains", "snow falls"),
    ]
    found = transfer_set(mrpc(), {"more": rows})
    assert [tuple(row.values()) for row in found.rows[0].to_list()] == [rows[3], rows[4]]
    assert found.rows[0].column_names == ["sentence1", "sentence2"]
    assert found.left_out == {"rows of the evaluation": 2, "rows of the training": 1, "repeated rows": 1}
    with pytest.raises(
        UserError, match=r"no unlabelled row is left of 'more' \(rows of the evaluation: 2\); give texts"
    ):
        transfer_set(mrpc(), {"more": rows[:2]})


def test_sources_are_known_by_their_content_in_any_order():
    one, other = [("a", "b"), ("c", "d")], [("c", "d"), ("e", "f")]
    found, again = transfer_set(mrpc(), {"x": one, "y": other}), transfer_set(mrpc(), {"z": other, "w": one})
    assert found.fingerprints == again.fingerprints and len(set(found.fingerprints)) == 2
    assert found.left_out["repeated rows"] == 1
    assert drawn_rows(found, 0, 1).to_list() == drawn_rows(again, 0, 1).to_list() and len(drawn_rows(found, 0, 1)) == 3
    assert (
        transfer_set(mrpc(), {"x": one, "copy": list(one)}).fingerprints
        == transfer_set(mrpc(), {"x": one}).fingerprints
    )
    changed = transfer_set(mrpc(), {"x": one, "y": [*other[:1], ("e", "g")]})
    assert changed.fingerprints != found.fingerprints


def test_a_bound_is_that_of_each_source_and_drawn_by_the_seed():
    found = transfer_set(mrpc(), {"x": [(f"a{i}", "b") for i in range(50)], "y": [("c", "d")]})
    drawn = [drawn_rows(found, 10, seed).to_list() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2] and [len(rows) for rows in drawn] == [11, 11, 11]


def test_files_of_every_kind_and_the_training_rows_of_a_glue_task_are_read(tmp_path):
    table = Dataset.from_dict({"question1": LINE, "question2": LINE[::-1], "label": [0, 1, 0, 1]})
    table.to_csv(tmp_path / "q.csv")
    table.to_parquet(tmp_path / "q.parquet")
    table.to_json(tmp_path / "q.jsonl")
    (tmp_path / "folder").mkdir()
    table.to_csv(tmp_path / "folder" / "train.csv")
    for name in "q.csv", "q.parquet", "q.jsonl", "folder":
        (rows,) = read_unlabelled(mrpc(), [str(tmp_path / name)]).rows
        assert [*rows["sentence1"]] == [*LINE] and [*rows["sentence2"]] == [*LINE[::-1]], name
    (tmp_path / "lines.txt").write_text("\n".join([*LINE, "", "  "]))
    (rows,) = read_unlabelled(single(), [str(tmp_path / "lines.txt")]).rows
    assert [*rows["text"]] == [*LINE], "empty lines are no rows"
    # Of several columns those that are called as the task's.
    table.add_column("sentence1", [*LINE]).add_column("sentence2", [*LINE]).to_csv(tmp_path / "four.csv")
    (rows,) = read_unlabelled(mrpc(), [str(tmp_path / "four.csv")]).rows
    assert rows["sentence1"][:] == rows["sentence2"][:] == [*LINE]


def test_a_glue_task_is_read_from_where_the_task_itself_is(tmp_path):
    (tmp_path / "qqp").mkdir()
    lines = ["---", "configs:", "- config_name: qqp", "  data_files:"]
    for split, rows in ("train", [*zip(LINE, LINE[::-1], strict=True)]), ("validation", [("no", "row")]):
        table = {"question1": [one for one, _ in rows], "question2": [two for _, two in rows], "label": [1] * len(rows)}
        Dataset.from_dict(table).to_parquet(tmp_path / "qqp" / f"{split}.parquet")
        lines += [f"  - split: {split}", f"    path: qqp/{split}.parquet"]
    (tmp_path / "README.md").write_text("\n".join([*lines, "---", ""]))
    found = read_unlabelled(mrpc(str(tmp_path)), ["qqp"])
    assert found.names == ("qqp",) and [*found.rows[0]["sentence1"]] == [*LINE]
    with pytest.raises(LoadError, match="' has the text columns 'question1' and 'question2', and a row of 't' is one"):
        read_unlabelled(TaskData(single().task, single().splits), [str(tmp_path / "qqp" / "train.parquet")])


@pytest.mark.parametrize(
    "source, message",
    [
        ("mrcp", "no file, folder or GLUE task is named 'mrcp'; did you mean 'mrpc'"),
        ("rows.csv", "no file, folder or GLUE task is named 'rows.csv'"),
        ("{}/empty.txt", "is empty; give a file with text"),
        ("{}/blank.txt", r"no unlabelled row is left of '.*blank.txt' \(no text\)"),
        (
            "{}/pairs.csv",
            "has the text columns 'a' and 'b', and a row of 't' is one text, the text column 'text'; give",
        ),
        ("{}/numbers.csv", "has the text columns none, and a row of 't' is one text"),
        ("{}/rows.pdf", "is not a supported data file"),
    ],
)
def test_a_source_that_cannot_be_read_is_named(source, message, tmp_path):
    for name, text in {"empty.txt": "", "blank.txt": " \n\n", "pairs.csv": "a,b\nx,y\n", "numbers.csv": "a\n1\n",
                       "rows.pdf": "x"}.items():  # fmt: skip
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        read_unlabelled(single(), [source.format(tmp_path)])


def test_running_text_has_no_unlabelled_rows():
    task = Task("language-modelling", ("text",), "", (), ("perplexity",), evaluation="language-model")
    with pytest.raises(UserError, match="the text of 'language-modelling' is its own label"):
        read_unlabelled(TaskData(task, {}), ["rows.txt"])
