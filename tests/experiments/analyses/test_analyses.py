"""Probes and similarities, on models of which it is known what each layer can know."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from datasets import Dataset

import depthprune
from depthprune.errors import UserError
from depthprune.evaluation.probing import probe_score
from depthprune.experiments.analyses.analyse import probe, similarity
from depthprune.experiments.analyses.representations import all_states, load_body
from depthprune.experiments.analyses.subject import look_at, telling_name
from depthprune.sources import locate
from depthprune.tasks import Task, TaskData, TaskOptions
from depthprune.tasks.data.encoding import encode
from tiny_models import ARCHITECTURES, WORDS, tiny_checkpoint, tiny_decoder, tiny_model, tiny_tokenizer

DEPTH = 4
TELLS = 2  # the only layer of `LATE` whose attention looks at other tokens
TEXTS = ["ba be", "ba be bi bo da du fe", "da", "fu fo fi fe fa", "ga ge", "ki ku ka ke ko ba", "ra", "su se", "me ma"]
PAIRS = Task("pairs", ("text",), "label", ("no", "yes"), ("accuracy",))
NUMBERS = Task("numbers", ("text",), "label", (), ("pearson", "spearman"))


def csv(file: Path, rows: int = 120, column: str = "label") -> TaskOptions:
    """Write rows whose class is told by a word at a random place; a third has the rarer class."""
    generator = torch.Generator().manual_seed(0)
    lines = ["text,label,number"]
    for i in range(rows):
        words = [WORDS[10 + int(n)] for n in torch.randint(0, 2, (3,), generator=generator)]
        words[int(torch.randint(0, 3, (1,), generator=generator))] = "ba" if i % 3 == 0 else "be"
        lines.append(f"{' '.join(words)},{'rare' if i % 3 == 0 else 'common'},{2.5 if i % 3 == 0 else 0.5}")
    file.write_text("\n".join(lines) + "\n")
    return TaskOptions(str(file), ("text",), column)


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("analyses")
    tiny_checkpoint(folder / "bert", num_layers=DEPTH)
    model = tiny_model("bert", depth=DEPTH)
    with torch.no_grad():
        for i, layer in enumerate(model.encoder.layer):
            if i != TELLS:  # the first token is then the same in all rows until layer `TELLS` has run
                layer.attention.output.dense.weight.zero_()
                layer.attention.output.dense.bias.zero_()
        model.encoder.layer[TELLS].attention.self.query.weight.zero_()  # it looks at all of them alike
    model.save_pretrained(folder / "late")
    tiny_tokenizer().save_pretrained(folder / "late")
    return folder


def test_a_probe_finds_the_answer_from_the_layer_on_that_has_it(here, tmp_path):
    options = csv(tmp_path / "rows.csv", 300)

    found = probe(str(here / "late"), "custom", options=options, store=tmp_path / "runs")

    rows = found.record["examples"]
    assert rows == {"train": 270, "evaluation": 30} and found.record["metric"] == "accuracy"
    assert len(set(found.values[: TELLS + 1])) == 1, "nothing but the larger class can be known here"
    assert 0.5 < found.values[0] < 0.8
    assert min(found.values[TELLS + 1 :]) > 0.95, found.values


def test_a_probe_of_numbers_is_a_ridge_regression_scored_by_correlation(here, tmp_path):
    options = csv(tmp_path / "rows.csv", 300, "number")

    found = probe(str(here / "late"), "custom", options=options, store=tmp_path / "runs")

    assert found.record["metric"] == "pearson"
    assert found.values[: TELLS + 1] == (0.0,) * (TELLS + 1)
    assert min(found.values[TELLS + 1 :]) > 0.9, found.values


@pytest.mark.parametrize("task", [PAIRS, NUMBERS], ids=["classes", "numbers"])
def test_the_probe_itself_finds_a_line_and_nothing_in_noise(task):
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(400, 6, generator=generator).numpy()
    labels = [int(x) for x in states[:, 3] > 0] if task.labels else states[:, 3].tolist()
    shuffled = [labels[int(i)] for i in torch.randperm(400, generator=generator)]

    seen, answers = probe_score(task, states[:300], labels[:300], states[300:], labels[300:])
    noise, _ = probe_score(task, states[:300], shuffled[:300], states[300:], shuffled[300:])

    assert seen > 0.95 and noise < (0.65 if task.labels else 0.3)
    assert len(answers) == 100


def test_rounding_is_no_feature():
    import numpy as np

    labels = [i % 2 for i in range(100)]
    states = np.ones((100, 3), dtype=np.float32)
    states[:, 0] += np.float32(1e-7) * np.array(labels, dtype=np.float32)
    assert len(set(states[:, 0])) == 2, "the label is in the last bit"

    assert probe_score(PAIRS, states[:50], labels[:50], states[50:], labels[50:])[0] == 0.5


def data_of(task: Task) -> TaskData:
    labels = [i / 2 for i in range(len(TEXTS))] if task.regression else [i % 2 for i in range(len(TEXTS))]
    rows = Dataset.from_dict({"text": TEXTS, "label": labels})
    return TaskData(task, {"train": rows, "validation": rows})


def states_of(folder: Path, batch_size: int, token: str | None = None):
    source = look_at(locate(str(folder)))
    body = load_body(source.source, source.tokenizer, 2, "cpu")
    rows = encode(data_of(PAIRS), source.tokenizer, 32)["train"]
    lengths = set(rows["length"])
    assert len(lengths) > 3, "rows of one length would not test the padding"
    found = all_states(
        body, rows, tokens=(token or source.token,), batch_size=batch_size, on_step=lambda done, total: None
    )
    return found[0], (body, rows, source.token)


@pytest.mark.parametrize("name", [*ARCHITECTURES, "llama"])
def test_padding_and_batches_do_not_change_a_representation(name, tmp_path):
    folder = tmp_path / "model"
    tiny_decoder(folder, DEPTH) if name == "llama" else tiny_checkpoint(folder, name, num_layers=DEPTH)

    together, (_, _, token) = states_of(folder, 8)
    alone, _ = states_of(folder, 1)

    assert token == ("last" if name in ("xlnet", "llama") else "first")
    assert together.shape == (len(TEXTS), DEPTH + 1, 16) and together.dtype == "float32"
    assert abs(together - alone).max() < 1e-4 * abs(alone).max()
    assert abs(together[0] - together[1]).max() > 0.01, "rows differ"


@pytest.mark.parametrize(
    "name, token",
    [("bert", "first"), ("bert", "last"), ("xlnet", "last"), ("xlnet", "first"), ("bert", "mean"), ("xlnet", "mean")],
)
def test_a_representation_is_the_hidden_state_of_its_token_or_the_mean_of_all(name, token, tmp_path):
    found, (body, rows, _) = states_of(tiny_checkpoint(tmp_path / "model", name, num_layers=DEPTH), 4, token)

    for i in range(len(rows)):
        ids = torch.tensor([rows[i]["input_ids"]])
        with torch.no_grad():
            given = body.model(input_ids=ids, output_hidden_states=True).hidden_states
        place = {"first": 0, "last": -1}.get(token)
        expected = torch.stack([state[0].mean(0) if place is None else state[0, place] for state in given])
        assert torch.allclose(torch.from_numpy(found[i]), expected, atol=1e-4), i


def test_the_last_layer_is_seen_before_the_norm_behind_it(tmp_path):
    found, (body, rows, _) = states_of(tiny_decoder(tmp_path / "model", DEPTH), 4)

    with torch.no_grad():
        given = body.model(input_ids=torch.tensor([rows[1]["input_ids"]]), output_hidden_states=True).hidden_states
    assert torch.allclose(torch.from_numpy(found[1, :-1]), torch.stack([s[0, -1] for s in given[:-1]]), atol=1e-4)
    last = torch.from_numpy(found[1, -1])
    assert not torch.allclose(last, given[-1][0, -1], atol=1e-2)
    assert torch.allclose(body.model.norm(last), given[-1][0, -1], atol=1e-4)


def test_layers_that_do_not_run_one_after_the_other_are_refused(here):
    _, (body, rows, _) = states_of(here / "bert", 4)
    body.model.encoder.layer[2] = body.model.encoder.layer[1]  # one module, which runs twice

    with pytest.raises(UserError, match="are not a chain"):
        all_states(body, rows, tokens=("first",), batch_size=4, on_step=lambda done, total: None)


def perturbed(source: Path, target: Path, layer: int) -> Path:
    from transformers import AutoModel

    shutil.copytree(source, target)
    model = AutoModel.from_pretrained(source)
    with torch.no_grad():
        model.encoder.layer[layer].output.dense.weight.mul_(-1)
    model.save_pretrained(target)
    return target


def test_a_changed_layer_shows_from_itself_on(here, tmp_path):
    options, more = csv(tmp_path / "rows.csv"), {"store": tmp_path / "runs"}
    other = perturbed(here / "bert", tmp_path / "other", 1)

    same = depthprune.similarity(str(here / "bert"), str(here / "bert"), "custom", options=options, **more)
    found = similarity(str(here / "bert"), str(other), "custom", options=options, **more)

    assert same.values == pytest.approx([1.0] * (DEPTH + 1), abs=1e-9)
    assert found.values[:2] == pytest.approx([1.0, 1.0], abs=1e-9)
    assert all(-1 <= value < 0.99 for value in found.values[2:]), found.values
    record = found.record
    assert (record["model"]["name"], record["before"]["name"]) == ("other", "bert")
    assert record["metric"] == "cosine" and record["examples"] == {"train": 0, "evaluation": 12}


def test_a_record_says_what_it_is_of_and_is_made_once(here, tmp_path):
    options, store = csv(tmp_path / "rows.csv"), tmp_path / "runs"
    stages = []

    def again(**more):
        return depthprune.probe(str(here / "bert"), "custom", options=options, store=store, **more,
                                on_progress=lambda stage, done, total: stages.append(stage))  # fmt: skip

    first = again()

    assert first.file.parent == store / "analyses" and not first.stored
    assert list(json.loads(first.file.read_text())) == ["kind", "model", "before", "task", "metric", "token", "values",
                                                        "covariance", "examples", "seed", "environment",
                                                        "max_length"]  # fmt: skip
    assert set(first.record["model"]) == {"name", "identity", "model_type", "depth"} and first.record["before"] is None
    assert str(here) not in first.file.read_text() and "torch" in first.record["environment"]["packages"]
    assert "probes" in stages
    stages.clear()
    assert again().stored and again().record == first.record and stages == ["loading the model"] * 2
    assert again(token="first").file == first.file, "what is said is what is the default"
    assert again(samples=10_000).file == first.file, "more rows than there are"
    forced = again(force=True)
    assert not forced.stored and forced.values == first.values
    others = [again(samples=60), again(samples=60, seed=1), again(token="last"), again(max_length=6)]
    assert len({first.file, *(other.file for other in others)}) == 5
    assert others[0].record["examples"]["train"] == 60
    assert len(list((store / "analyses").iterdir())) == 5, "nothing else is left"


def test_several_tokens_come_from_one_pass_and_each_has_its_record(here, tmp_path):
    options, store, steps = csv(tmp_path / "rows.csv"), tmp_path / "runs", []

    def again(token, **more):
        steps.clear()
        return probe(str(here / "bert"), "custom", options=options, store=store, token=token, **more,
                     on_progress=lambda *step: steps.append(step))  # fmt: skip

    first = again("first")
    passes = [step for step in steps if step[0].endswith("rows")]
    both = again("first,mean")

    assert passes and [step for step in steps if step[0].endswith("rows")] == passes, "one pass, for the mean alone"
    (mean,) = both.more
    assert both.record == first.record and both.stored and not mean.stored
    assert (both.record["token"], mean.record["token"]) == ("first", "mean")
    assert mean.values[0] > both.values[0], "the mean of the embeddings has the words"
    assert again("mean").record == mean.record and again("mean").stored
    forced = again("mean, first", force=True)
    assert [step for step in steps if step[0].endswith("rows")] == passes, "one pass for both"
    assert (forced.values, forced.more[0].values) == (mean.values, first.values) and not forced.stored
    with pytest.raises(UserError, match="there is no token 'middle'; it is 'first', 'last' or 'mean'"):
        again("first,middle")


def test_an_analysis_says_how_exactly_its_rows_tell_the_values_and_their_differences(here, tmp_path):
    import numpy as np

    options, more = csv(tmp_path / "rows.csv", 300), {"store": tmp_path / "runs"}
    other = perturbed(here / "late", tmp_path / "other", TELLS)

    found = probe(str(here / "late"), "custom", options=options, **more)
    turned = similarity(str(here / "late"), str(other), "custom", options=options, token="mean", **more)

    covariance = np.array(found.record["covariance"])
    assert covariance.shape == (DEPTH + 1, DEPTH + 1) and np.array_equal(covariance, covariance.T)
    share = found.values[0]
    assert covariance[0, 0] == pytest.approx(share * (1 - share) / 30, rel=0.15), "that of a binomial"
    assert covariance[0, 1] == pytest.approx(covariance[0, 0]), "the same answers, so that their difference is exact"
    spread = np.array(turned.record["covariance"])
    assert spread.shape == (DEPTH + 1, DEPTH + 1) and abs(spread[: TELLS + 1]).max() < 1e-12 < spread[-1, -1]


def test_a_stored_file_that_is_none_is_named(here, tmp_path):
    options, store = csv(tmp_path / "rows.csv"), tmp_path / "runs"
    first = probe(str(here / "bert"), "custom", options=options, store=store)
    first.file.write_text("{")

    with pytest.raises(UserError, match=r"cannot be read .* add --force"):
        probe(str(here / "bert"), "custom", options=options, store=store)


def test_other_tokens_or_another_depth_cannot_be_compared(here, tmp_path):
    from transformers import AutoTokenizer

    options, more = csv(tmp_path / "rows.csv"), {"store": tmp_path / "runs"}
    shorter = tiny_checkpoint(tmp_path / "shorter", num_layers=DEPTH - 1)
    odd = tmp_path / "odd"
    shutil.copytree(here / "bert", odd)
    text = (odd / "tokenizer.json").read_text().replace('"ba": 5', '"ba": 0').replace('"[PAD]": 0', '"[PAD]": 5')
    (odd / "tokenizer.json").write_text(text)
    assert AutoTokenizer.from_pretrained(odd)("ba")["input_ids"] == [2, 0, 3], "the tokenizer is another"

    for after, message in (
        (shorter, "has 3 layers and '.*bert' has 4, .* give the full fine-tuned model"),
        (odd, r"row \d of 'held-out' has other tokens"),
        (tiny_checkpoint(tmp_path / "roberta", "roberta", num_layers=DEPTH), "is a roberta and '.*bert' a bert"),
    ):
        with pytest.raises(UserError, match=message):
            similarity(str(here / "bert"), str(after), "custom", options=options, **more)
    assert not (tmp_path / "runs").exists()


def test_a_checkpoint_of_a_store_is_called_by_what_it_was_made_of(here, tmp_path):
    from made_records import make_record

    digest = make_record(tmp_path, (), 0.8)
    folder = tmp_path / digest / "model"
    shutil.copytree(here / "bert", folder, dirs_exist_ok=True)
    assert telling_name(locate(str(folder))) == "model"

    (folder / "depthprune.json").write_text(json.dumps({"cuts": [], "task": "mrpc", "run": digest}))
    assert telling_name(locate(str(folder))) == "tiny fine-tuned on mrpc"

    cuts = [{"source": "bert-base-cased", "stacks": {"layers": {"depth": 6, "dropped": [1, 5]}}}]
    (folder / "depthprune.json").write_text(json.dumps({"cuts": cuts, "task": "mrpc"}))
    assert telling_name(locate(str(folder))) == "bert-base-cased without layers 1,5 fine-tuned on mrpc"

    (folder / "depthprune.json").write_text("{")
    assert telling_name(locate(str(folder))) == "model"
    assert telling_name(locate(str(here / "bert"))) == "bert"
