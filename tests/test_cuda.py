"""On a CUDA device: what the CPU does, to rounding; in bfloat16 too; several runs on one GPU; timing that waits for it.

python -m pytest -m gpu tests/test_cuda.py
"""

import json
import time

import pytest
import torch

import depthprune
from depthprune.evaluation.base import evaluation_of
from depthprune.experiments.store.store import Store
from depthprune.experiments.sweeps.executors.local import gpus
from depthprune.healing.precision import faster_precision
from depthprune.loading import load_classifier, load_tokenizer
from depthprune.profiling.latency import latency_ms
from depthprune.sources import locate
from depthprune.tasks import Task, TaskOptions, load_task
from depthprune.tasks.data.encoding import encode
from tiny_models import tiny_checkpoint, words

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: pytest -m gpu where there is one"),
]
ROWS = 160


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A model of four layers, and rows whose label is whether a word is in them, which it can learn."""
    folder = tmp_path_factory.mktemp("cuda")
    tiny_checkpoint(folder / "model", "bert", "base", 4)
    lines = words(ROWS * 8, line=8).splitlines()
    first = lines[0].split()[0]
    rows = "".join(f"{line},{int(first in line.split())}\n" for line in lines)
    (folder / "rows.csv").write_text("text,label\n" + rows)
    return folder


def options(here) -> TaskOptions:
    return TaskOptions(str(here / "rows.csv"), ("text",), "label")


def ran(here, store, **more):
    how = {"options": options(here), "layers": "1-2", "max_length": 16, "store": store, "seed": 3, "profile": False}
    return depthprune.run(str(here / "model"), "custom", **(how | more))


class Slow(torch.nn.Module):
    """Gives the GPU more to do than it takes to ask for it."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.eye(4096, device="cuda"))

    @property
    def device(self):
        return self.weight.device

    def forward(self, input_ids):
        product = self.weight
        for _ in range(50):
            product = product @ self.weight
        return product


def test_a_time_is_that_of_the_work_and_not_of_asking_for_it():
    model, batch = Slow(), {"input_ids": torch.zeros(1, 1, device="cuda")}
    with torch.inference_mode():
        model(**batch)
        torch.cuda.synchronize()
        begun = time.perf_counter()
        model(**batch)
        asked = 1000 * (time.perf_counter() - begun)
        torch.cuda.synchronize()
        done = 1000 * (time.perf_counter() - begun)
    assert done > 2 * asked, "else the two cannot be told apart"
    assert latency_ms(model, [batch]) == pytest.approx(done, rel=0.5)


def test_a_model_answers_as_on_the_cpu_to_rounding(here):
    data, source = load_task("custom", options(here)), locate(str(here / "model"))
    tokenizer = load_tokenizer(source)
    rows = encode(data, tokenizer, 16)["train"]
    regression, answers = Task("numbers", ("text",), "label", (), ("pearson",)), {}
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model, _ = load_classifier(source, 1, device=device)
        _, answers[device] = evaluation_of(regression).predict(model, tokenizer, regression, rows)
    cpu, cuda = (torch.tensor(answers[device]) for device in ("cpu", "cuda"))
    assert cpu.std() > 1e-3, "else there is nothing to compare"
    torch.testing.assert_close(cuda, cpu, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_drops_heals_scores_and_saves_and_the_checkpoint_scores_the_same_on_the_cpu(precision, here, tmp_path):
    heal = depthprune.HealSpec(num_epochs=2, learning_rate=1e-3, precision=precision)
    result = ran(here, tmp_path, device="cuda", heal=heal)
    record = result.pruned.record
    assert record["environment"]["device"] == torch.cuda.get_device_name()
    outcome = record["outcome"]
    assert outcome["heal"]["precision"] == precision and outcome["heal"]["steps"] > 0 and outcome["heal"]["loss"] < 5
    model, fresh = load_classifier(locate(str(result.pruned.model)), 2)
    assert not fresh and model.config.num_hidden_layers == 2 and model.dtype == torch.float32
    data = load_task("custom", options(here))
    tokenizer = load_tokenizer(locate(str(result.pruned.model)))
    rows = encode(data, tokenizer, 16)["held-out"]
    _, predicted = evaluation_of(data.task).predict(model, tokenizer, data.task, rows)
    (kept,) = json.loads((tmp_path / result.pruned.digest / "predictions.json").read_text()).values()
    assert len(predicted) == ROWS // 10 and predicted == kept["predicted"]


def test_the_same_run_in_float32_loses_what_it_loses_on_the_cpu(here, tmp_path):
    heal = depthprune.HealSpec(num_epochs=2, learning_rate=1e-3, precision="float32")
    losses = {}
    for device in ("cpu", "cuda"):
        result = ran(here, tmp_path / device, device=device, heal=heal)
        losses[device] = result.pruned.record["outcome"]["heal"]["loss"]
    # Dropout draws other numbers on a GPU, so that the two trainings are alike and no more.
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=0.25)


def test_auto_trains_in_bfloat16_where_the_gpu_has_it(here):
    model, _ = load_classifier(locate(str(here / "model")), 2, device="cuda")
    wanted = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    assert faster_precision(model, {}).precision == wanted


@pytest.mark.parametrize("metric", ["contribution", "block-influence"])
def test_layers_score_as_on_the_cpu(metric, here):
    data = depthprune.CalibrationOptions(str(here / "rows.csv"), text_column="text", samples=64)
    found = {}
    for device in ("cpu", "cuda"):
        engine = depthprune.Engine(device=device)
        found[device] = depthprune.score(str(here / "model"), metric, data, engine=engine).of(metric).layers
    assert len(set(found["cpu"])) == 4
    assert found["cuda"] == pytest.approx(found["cpu"], abs=1e-4)


def test_the_runs_of_a_sweep_share_a_gpu(here, tmp_path):
    entries = {
        "models": str(here / "model"), "tasks": "custom", "dataset": str(here / "rows.csv"), "text_columns": "text",
        "label_column": "label", "strategies": ["top", "bottom", "symmetric"], "counts": [1, 2], "max_length": 16,
        "heal": {"num_epochs": 1},
    }  # fmt: skip
    assert gpus(), "CUDA has a device, and the executor does not see it"
    result = depthprune.sweep(entries, store=tmp_path, device="cuda", gpus=1 / (3 * len(gpus())), cpus=1, profile=False)
    assert not result.failed and len(result.records) == 6
    assert {record["environment"]["device"] for record in result.records.values()} == {torch.cuda.get_device_name()}
    assert Store(tmp_path).root.is_dir()
