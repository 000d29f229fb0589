"""What a run answered row by row: written beside its record, in the order of the data, and read again."""

import pytest

from depthprune.experiments.store.predictions import FILE, read_predictions, write_predictions


def test_predictions_are_read_as_they_were_written(tmp_path):
    write_predictions(tmp_path, {"matched_": {"expected": [0, 2, 1], "predicted": [0, 1, 1]},
                                 "": {"expected": [2.5], "predicted": [2.123456789]}})  # fmt: skip
    assert read_predictions(tmp_path) == {
        "matched_": {"expected": [0, 2, 1], "predicted": [0, 1, 1]},
        "": {"expected": [2.5], "predicted": [2.12346]},
    }
    assert [file.name for file in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize("text", ["{", "[]", '{"": {"expected": [1]}}', '{"": {"expected": [1], "predicted": []}}', ""])
def test_a_broken_or_missing_file_is_no_predictions(text, tmp_path):
    assert read_predictions(tmp_path) is None
    (tmp_path / FILE).write_text(text)
    assert read_predictions(tmp_path) is None
