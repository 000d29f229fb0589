"""The order of a trained head's labels is its own: MNLI's come in all six, and a score must not depend on it."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from depthprune.errors import LoadError
from depthprune.evaluation.classification import predict
from depthprune.experiments.choosing.calibrate import prepare
from depthprune.experiments.choosing.engine import Engine
from depthprune.experiments.choosing.objectives import choose_objective, opened_objective
from depthprune.experiments.choosing.score import score_layers
from depthprune.experiments.comparison import compare
from depthprune.experiments.specification import make_spec
from depthprune.loading import load_classifier, load_tokenizer
from depthprune.plan import LayerPlan
from depthprune.sources import locate
from depthprune.specs import HealSpec
from depthprune.tasks import Task, TaskData, TaskOptions, load_task
from depthprune.tasks.data.calibration import CalibrationOptions
from depthprune.tasks.data.encoding import encode
from depthprune.tasks.heads import fit_to_head
from tiny_models import ARCHITECTURES, WORDS, build, tiny_tokenizer

MNLI = ("entailment", "neutral", "contradiction")  # GLUE's order
OTHER = ("NEUTRAL", "CONTRADICTION", "ENTAILMENT")  # neither GLUE's order nor the alphabet's
NUMBERED = ("LABEL_0", "LABEL_1", "LABEL_2")
FULL = LayerPlan(2, ())


def checkpoint(folder: Path, names=OTHER) -> Path:
    """Write a classifier of 2 layers whose head has these names, all with the same weights."""
    row = ARCHITECTURES["bert"]
    config = row.make_config(2, id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)})
    build(row.classes["classification"], config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("models") / "mnli-like")


def pairs(count: int = 60) -> list[tuple[str, str]]:
    return [(" ".join(WORDS[i % 50 : i % 50 + 3]), " ".join(WORDS[i * 7 % 50 : i * 7 % 50 + 2])) for i in range(count)]


@pytest.fixture(scope="module")
def answers(here) -> tuple[list[str], list[list[float]]]:
    """What `pipeline` says about every pair: the name of its answer, and the probabilities in the head's order."""
    said = transformers.pipeline("text-classification", model=str(here), top_k=None, device="cpu")
    found = [said({"text": a, "text_pair": b}) for a, b in pairs()]
    names = [max(each, key=lambda one: one["score"])["label"] for each in found]
    assert len(set(names)) > 1, "a constant model would agree with any order"
    return names, [[next(one["score"] for one in each if one["label"] == name) for name in OTHER] for each in found]


@pytest.fixture(scope="module")
def file(tmp_path_factory, answers) -> Path:
    """Rows that the model gets right, save every third."""
    found = tmp_path_factory.mktemp("data") / "pairs.csv"
    labels = [MNLI[i // 3 % 3] if i % 3 == 0 else name.lower() for i, name in enumerate(answers[0])]
    rows = [f"{a},{b},{label}" for (a, b), label in zip(pairs(), labels, strict=True)]
    found.write_text("\n".join(["premise,hypothesis,label", *rows]) + "\n")
    return found


def custom(file: Path, **more) -> TaskOptions:
    return TaskOptions(str(file), ("premise", "hypothesis"), "label", **more)


def glue_like() -> TaskData:
    from datasets import Dataset

    rows = {"premise": [a for a, _ in pairs()], "hypothesis": [b for _, b in pairs()], "label": [0, 1, 2] * 20}
    task = Task("mnli", ("premise", "hypothesis"), "label", MNLI, ("accuracy",))
    return TaskData(task, {"train": Dataset.from_dict(rows), "validation": Dataset.from_dict(rows)})


def test_what_is_predicted_is_what_a_pipeline_says(here, answers):
    source = locate(str(here))
    data = fit_to_head(glue_like(), source.config, source.name, needed=True)
    model, fresh = load_classifier(source, data.task.num_outputs)
    assert not fresh and data.task.outputs == (2, 0, 1)
    tokenizer = load_tokenizer(source)
    rows = encode(data, tokenizer, 32)["validation"]

    expected, predicted = predict(model, tokenizer, data.task, rows, batch_size=1)

    assert [MNLI[label].upper() for label in predicted] == answers[0]
    assert expected == [0, 1, 2] * 20
    assert any("matched with the head's outputs by name: 0 is 'neutral'" in note for note in data.notes)


def test_the_command_scores_what_a_pipeline_scores(here, file, answers, monkeypatch, capsys):
    from depthprune.cli import main

    right = [line.rsplit(",", 1)[1] for line in file.read_text().splitlines()[1:]]
    share = sum(name.lower() == label for name, label in zip(answers[0], right, strict=True)) / len(right)
    assert 0.6 < share < 0.9
    monkeypatch.setattr("sys.argv", ["depthprune", "evaluate", str(here), "--task", "custom", "--dataset", str(file),
                                     "--text-columns", "premise,hypothesis", "--label-column", "label"])  # fmt: skip
    with pytest.raises(SystemExit) as stop:
        main.main()
    said = capsys.readouterr()
    assert stop.value.code == 0, said.err
    assert f"accuracy {100 * share:.2f} (60 examples)" in said.out and "by name" in said.out


def test_losses_and_metrics_of_a_search_are_those_of_the_pipeline(here, answers):
    source, data = locate(str(here)), glue_like()
    expected = [OTHER.index(MNLI[i % 3].upper()) for i in range(60)]
    loss = -torch.tensor([answers[1][i][label] for i, label in enumerate(expected)]).log().mean()
    options = CalibrationOptions("mnli", split="validation")

    for name, value in (("loss", float(loss)), ("metric", None)):
        prepared = prepare(source, options, Engine(device="cpu"), None, data)
        chosen = choose_objective(prepared, name)
        with opened_objective(prepared, chosen) as opened:
            parts = [opened.batch(FULL, i) for i in range(opened.num_batches)]
        found = sum(part for part, _ in parts) / sum(count for _, count in parts)
        right = sum(said == MNLI[i % 3].upper() for i, said in enumerate(answers[0])) / 60
        assert found == pytest.approx(1 - right if value is None else value, abs=1e-4), name


def test_gradients_are_those_of_the_labels_by_name(here, tmp_path):
    data, options = glue_like(), CalibrationOptions("mnli", split="validation")
    by_name = score_layers(str(here), "taylor", options, engine=Engine(device="cpu"), task_data=data)
    # The same head with names that say nothing, and labels in its order.
    plain = checkpoint(tmp_path / "numbered", NUMBERED)
    renumbered = data.splits["validation"].map(lambda row: {"label": (2, 0, 1)[row["label"]]})
    same = score_layers(
        str(plain), "taylor", options, engine=Engine(device="cpu"),
        task_data=TaskData(data.task, {"validation": renumbered}),
    )  # fmt: skip
    wrong = score_layers(str(plain), "taylor", options, engine=Engine(device="cpu"), task_data=data)
    assert by_name.of().layers == pytest.approx(same.of().layers)
    assert by_name.of().layers != pytest.approx(wrong.of().layers, rel=1e-3)
    assert any("by name" in note for note in by_name.calibration["notes"])
    assert any("by number" in note for note in wrong.calibration["notes"])


def test_training_keeps_the_order_of_the_head(here, file, tmp_path):
    heal = HealSpec(num_epochs=0.01, learning_rate=1e-6, batch_size=8, precision="float32")
    found = compare(str(here), "custom", options=custom(file), heal=heal, store=tmp_path / "runs", device="cpu")

    assert found.full.model is not None
    config = json.loads((found.full.model / "config.json").read_text())
    assert tuple(config["id2label"].values()) == OTHER and config["label2id"]["ENTAILMENT"] == 2
    assert found.full.record["spec"]["evaluation"]["outputs"] == [1, 2, 0]
    assert found.full.outcome["fresh_tensors"] == []
    assert any("by name" in note for note in found.full.outcome["notes"])
    assert found.full.score > 0.5, "training against the head would start below chance"


def test_a_run_on_a_head_of_another_order_has_a_name_of_its_own_and_others_keep_theirs(here, tmp_path):
    data = glue_like()
    same_order = locate(str(checkpoint(tmp_path / "same", MNLI)))
    more = {"heal": HealSpec(), "max_length": 32, "seed": 1}
    assert make_spec(same_order, data, FULL, **more).evaluation.outputs == ()
    assert make_spec(locate(str(here)), data, FULL, **more).evaluation.outputs == (2, 0, 1)


def fitted(names, labels, *, needed=True) -> TaskData:
    config = {"architectures": ["BertForSequenceClassification"], "id2label": {str(i): n for i, n in enumerate(names)}}
    return fit_to_head(
        TaskData(Task("t", ("text",), "label", labels, ("accuracy", "f1")), {}), config, "m", needed=needed
    )


@pytest.mark.parametrize(
    "names, labels, outputs, how",
    [
        (("POSITIVE", "NEGATIVE"), ("negative", "positive"), (1, 0), "name"),
        (("not equivalent", "Equivalent"), ("not_equivalent", "equivalent"), (), "name"),
        (("LABEL_0", "LABEL_1"), ("negative", "positive"), (), "number"),
        (("NEGATIVE", "POSITIVE"), ("0", "1"), (), "number"),
        (("1", "0"), ("0", "1"), (1, 0), "name"),
        (("LABEL_0", "LABEL_1"), ("1", "2"), (), "number"),
        (("a", "b", "c"), ("c", "a"), (2, 0, 1), "name"),
        (("LABEL_0", "LABEL_1", "LABEL_2"), ("0", "2"), (0, 2, 1), "number"),
    ],
)
def test_labels_are_matched_by_name_and_by_number_where_names_say_nothing(names, labels, outputs, how):
    found = fitted(names, labels)
    assert found.task.outputs == outputs and f"by {how}" in found.notes[-1]
    assert found.task.num_outputs == len(names)
    assert found.task.labels[: len(labels)] == labels


@pytest.mark.parametrize(
    "names, labels",
    [
        (("joy", "anger"), ("negative", "positive")),
        (("NEGATIVE", "POSITIVE"), ("1", "2")),
        (("a", "b", "c"), ("a", "d", "e")),
        (("0", "1", "2"), ("a", "b")),
    ],
)
def test_labels_that_cannot_be_matched_are_refused(names, labels):
    with pytest.raises(LoadError, match="are not those of the head"):
        fitted(names, labels)


def test_a_head_for_another_number_of_labels_leaves_room_for_a_fresh_one_that_is_said():
    found = fitted(("a", "b", "c"), ("yes", "no"), needed=False)
    assert found.task.outputs == () and found.task.num_outputs == 2
    assert "has 3 outputs, not 2: a fresh one is trained" in found.notes[-1]


def test_the_names_of_a_model_without_a_trained_head_mean_nothing():
    data = TaskData(Task("t", ("text",), "label", ("no", "yes"), ("accuracy",)), {})
    config = {"architectures": ["BertForMaskedLM"], "id2label": {"0": "joy", "1": "anger"}}
    assert fit_to_head(data, config, "m") == data


def test_a_classifier_that_puts_out_nan_has_no_score(here):
    from depthprune.errors import UserError

    source = locate(str(here))
    data = fit_to_head(glue_like(), source.config, source.name)
    model, _ = load_classifier(source, 3)
    with torch.no_grad():
        model.classifier.bias[1] = float("nan")
    tokenizer = load_tokenizer(source)
    with pytest.raises(UserError, match=r"no number \(NaN\) for 60 of 60 rows"):
        predict(model, tokenizer, data.task, encode(data, tokenizer, 32)["validation"])


def test_custom_labels_are_loaded_as_they_stand(file):
    assert load_task("custom", custom(file)).task.labels == ("contradiction", "entailment", "neutral")
