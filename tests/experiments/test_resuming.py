"""Commands that were killed in the middle of a training, and go on there when they are given again."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

import depthprune
from depthprune import HealSpec, TaskOptions
from depthprune.healing.execution import resuming
from tiny_models import tiny_checkpoint, words

SAVES_OFTEN = """
from depthprune.healing.execution import resuming
resuming.EVERY, resuming.WORTH = 0.0, 0
from depthprune.cli.main import main
main()
"""
RECIPE = HealSpec(num_epochs=12, batch_size=8, learning_rate=1e-3, precision="float32")


@pytest.fixture(autouse=True)
def save_often(monkeypatch):
    monkeypatch.setattr(resuming, "EVERY", 0.0)
    monkeypatch.setattr(resuming, "WORTH", 0)


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    """A folder with a model and rows."""
    folder = tmp_path_factory.mktemp("resuming")
    tiny_checkpoint(folder / "model", num_layers=3)
    lines = words(80 * 6, line=6).splitlines()[:80]
    (folder / "rows.csv").write_text("text,label\n" + "".join(f"{line},{i % 2}\n" for i, line in enumerate(lines)))
    (folder / "lines.txt").write_text(words(120 * 6, line=6))
    return folder


def kill_in_the_middle(here: Path, store: Path, records: int) -> None:
    """Start a run, and kill it when it has saved some states of the training after so many recorded ones."""
    words = ("run", here / "model", "--task", "custom", "--dataset", here / "rows.csv", "--text-columns", "text",
             "--label-column", "label", "--layers", "1", "--heal", "distill(beta=1)", "--epochs", "12", "--batch-size",
             "8", "--learning-rate", "1e-3", "--precision", "float32", "--no-profile", "--device", "cpu", "--store",
             store)  # fmt: skip
    child = subprocess.Popen(
        [sys.executable, "-c", SAVES_OFTEN, *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 300
        while child.poll() is None and time.monotonic() < deadline:
            saved = [int(file.parent.name.split("-")[1]) for file in store.glob("*/training/1/checkpoint-*/about.json")]
            if len(list(store.glob("*/record.json"))) == records and max(saved, default=0) >= 5:
                break
            time.sleep(0.01)
        assert child.poll() is None, "it should have been killed"
    finally:
        child.kill()
        child.wait()


@pytest.mark.slow
def test_a_run_that_is_killed_twice_ends_with_the_tensors_and_scores_of_one_that_was_not(here, tmp_path):
    def carried_out(store: Path, **more):
        said: list[str] = []
        found = depthprune.run(
            *(str(here / "model"), "custom"), layers="1", store=store, profile=False, device="cpu",
            options=TaskOptions(str(here / "rows.csv"), ("text",), "label"),
            heal=depthprune.HealSpec(**{**RECIPE.__dict__, "steps": distill}),
            on_progress=lambda stage, done, total: said.append(stage), **more,
        )  # fmt: skip
        return found, said

    from depthprune.healing.recipe import parse_recipe

    distill = parse_recipe("distill(beta=1)")
    kill_in_the_middle(here, tmp_path / "killed", records=0)  # in the fine-tuning of the full model
    kill_in_the_middle(here, tmp_path / "killed", records=1)  # in the distillation
    resumed, said = carried_out(tmp_path / "killed")
    whole, _ = carried_out(tmp_path / "whole", execution=depthprune.Execution(resume=False))
    assert sum("pruned model: resuming the training at step" in stage for stage in said) == 1
    for one, other in (resumed.full, whole.full), (resumed.pruned, whole.pruned):
        assert one.digest == other.digest and one.outcome["metrics"] == other.outcome["metrics"]
        healed = [run.outcome["heal"] for run in (one, other)]
        assert healed[0]["loss"] == healed[1]["loss"] and healed[0]["history"] == healed[1]["history"]
        (step,) = healed[0]["resumed_steps"]
        assert 5 <= step < healed[0]["steps"] and healed[1]["resumed_steps"] == []
        assert one.model is not None and other.model is not None
        tensors, others = (load_file(folder / "model.safetensors") for folder in (one.model, other.model))
        assert tensors.keys() == others.keys()
        assert all(tensor.equal(others[name]) for name, tensor in tensors.items())
        assert not (tmp_path / "killed" / one.digest / "training").exists()


def test_a_checkpoint_whose_healing_was_interrupted_is_healed_to_the_same_end(here, tmp_path):
    depthprune.drop_checkpoint(str(here / "model"), tmp_path / "cut", [1])

    def healed(output: Path, stop_at: int = 0, **more):
        said: list[str] = []

        def tell(stage: str, done: int, total: int) -> None:
            said.append(stage)
            if stage.startswith("healing") and done == stop_at:
                raise KeyboardInterrupt

        recipe = HealSpec(num_epochs=2, batch_size=16, learning_rate=3e-3, precision="float32", steps=steps)
        how = {"data": str(here / "lines.txt"), "recipe": recipe, "held_out": 20, "device": "cpu", **more}
        done = depthprune.heal(str(tmp_path / "cut"), str(here / "model"), output, on_progress=tell, **how)
        return done, said

    from depthprune.healing.recipe import parse_recipe

    steps = parse_recipe("embedding")
    whole, _ = healed(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        healed(tmp_path / "out", stop_at=9)
    assert not (tmp_path / "out").exists() and (tmp_path / "out.unfinished").is_dir()
    done, said = healed(tmp_path / "out")
    assert "resuming the training at step 8" in said and done.training.resumed_steps == (8,)
    assert done.cosine == whole.cosine and not (tmp_path / "out.unfinished").exists()
    tensors, others = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "whole"))
    assert all(tensor.equal(others[name]) for name, tensor in tensors.items())

    with pytest.raises(KeyboardInterrupt):
        healed(tmp_path / "again", stop_at=9)
    other, said = healed(tmp_path / "again", held_out=21)
    assert "the training begins anew, since its saved state is of another data" in said
    assert other.training.resumed_steps == ()
