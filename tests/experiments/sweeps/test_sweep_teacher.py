"""Teachers of a sweep's runs: the full model is trained once and kept while runs need it; or a model that is given."""

import json
from contextlib import closing

import pytest
import torch
from safetensors.torch import load_file

from depthprune.errors import UserError
from depthprune.experiments.store.leases import Watch, leased
from depthprune.experiments.store.store import Store
from depthprune.experiments.sweeps.auto import auto
from depthprune.experiments.sweeps.choices import stored_scorer
from depthprune.experiments.sweeps.expansion import expand
from depthprune.experiments.sweeps.grid import parse_sweep
from depthprune.experiments.sweeps.runner import check_jobs_memory, run_jobs
from depthprune.healing.base import Healed, healer, registry
from depthprune.healing.recipe import parse_recipe
from depthprune.sources import locate
from depthprune.specs import HealSpec
from depthprune.tasks import TaskOptions
from tiny_models import tiny_checkpoint, words

QUICK = {"num_epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "precision": "float32"}
HEAD = "classifier.weight"


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("here")
    tiny_checkpoint(folder / "model", "bert", "base", 3)
    tiny_checkpoint(folder / "given", "bert", "classification", 3)
    lines = words(32 * 6, line=6).splitlines()[:32]
    (folder / "rows.csv").write_text("text,label\n" + "".join(f"{line},{i % 2}\n" for i, line in enumerate(lines)))
    return folder


@pytest.fixture(autouse=True)
def take_head(one_by_one):
    """A method of another package: a head that is the teacher's."""

    @healer("take-head", needs_teacher=True)
    def take_head(model, data, options, *, schedule, seed, cut, teacher, on_step):
        """Give the student the head of its teacher."""
        model.classifier.load_state_dict(teacher.model().classifier.state_dict())
        return Healed(model)

    yield
    registry._parts.pop("take-head")


def grid(here, **more):
    content = {"models": str(here / "model"), "tasks": "custom", "dataset": str(here / "rows.csv"), "counts": [1, 2],
               "text_columns": "text", "label_column": "label", "strategies": "top", **QUICK}  # fmt: skip
    return parse_sweep({**content, "max_length": 16, "heal": ["finetune", "take-head"], **more})


def runs_of(here, store, **more):
    """Return the runs of a sweep: the full model's digest and those of the others."""
    expansion = expand(grid(here, **more), stored_scorer(store.root, "cpu", take=True))
    full, *others = expansion.jobs
    return expansion, full, others


def outcomes(expansion, store, **more):
    return run_jobs(expansion, store, device="cpu", profile=False, **more)


def head(folder):
    return load_file(folder / "model.safetensors")[HEAD]


def test_the_full_model_is_trained_once_and_its_checkpoint_goes_when_the_last_run_is_done(here, tmp_path):
    store = Store(tmp_path)
    expansion, full, others = runs_of(here, store)
    assert len(others) == 4 and {row.recipe for row in expansion.rows} == {"finetune", "take-head"}
    seen = []
    for digest, state, line in outcomes(expansion, store):
        assert state == "done", line
        stat = (store.folder(full) / "record.json").stat()
        seen.append((digest, stat.st_mtime_ns, stat.st_ino, store.model_folder(full).is_dir()))
    assert [digest for digest, *_ in seen] == [full, *others]
    assert len({(written, inode) for _, written, inode, _ in seen}) == 1, "its record was written once"
    assert all(kept for *_, kept in seen), "as long as runs need it"
    assert not store.model_folder(full).exists() and not list(tmp_path.glob("*/teaches.json"))
    assert not list(tmp_path.glob("*/model")), "nobody asked for a checkpoint"


def test_a_teacher_is_kept_where_a_sweep_was_stopped_and_goes_when_it_was_gone_on_with(here, tmp_path):
    store = Store(tmp_path)
    expansion, full, others = runs_of(here, store)
    with closing(outcomes(expansion, store)) as stopped:
        assert next(stopped) == (full, "done", "")
    kept = store.model_folder(full) / "model.safetensors"
    written = kept.stat().st_mtime_ns
    for digest, state, _ in outcomes(expansion, store):
        assert state == "done" and (digest == full or kept.stat().st_mtime_ns == written)
    assert len(list(tmp_path.glob("*/record.json"))) == 1 + len(others) and not kept.exists()


def test_a_full_model_that_was_run_without_a_checkpoint_is_run_again_once_to_teach(here, tmp_path):
    store = Store(tmp_path)
    plain, full, _ = runs_of(here, store, heal="finetune")
    assert {state for _, state, _ in outcomes(plain, store)} == {"done"}
    before = (store.folder(full) / "record.json").stat().st_mtime_ns
    expansion, same, _ = runs_of(here, store)
    assert same == full
    written = [(store.folder(full) / "record.json").stat().st_mtime_ns for _ in outcomes(expansion, store)]
    assert written[-1] > before and len(set(written) - {before}) == 1
    assert list(outcomes(expansion, store)) and not store.model_folder(full).exists(), "what is done needs no teacher"


def test_a_teacher_that_somebody_asked_to_save_stays(here, tmp_path):
    store = Store(tmp_path)
    expansion, full, others = runs_of(here, store)
    assert {state for _, state, _ in outcomes(expansion, store, save=True)} == {"done"}
    assert all(store.model_folder(digest).is_dir() for digest in (full, *others))
    taught = [digest for digest, job in expansion.jobs.items() if job.spec.heal.steps]
    assert taught and all(torch.equal(head(store.model_folder(d)), head(store.model_folder(full))) for d in taught)


def test_a_teacher_that_a_run_in_progress_needs_stays(here, tmp_path):
    store = Store(tmp_path)
    expansion, full, others = runs_of(here, store, counts=[1])
    more, same, (_, other) = runs_of(here, store, counts=[2])
    assert same == full
    with leased(store.folder(other), Watch()) as ours:
        assert ours
        spec = more.jobs[other].spec.to_dict()
        (store.folder(other) / "spec.json").write_text(json.dumps(spec))
        assert len(list(outcomes(expansion, store))) == 1 + len(others)
        assert store.model_folder(full).is_dir()
        (store.folder(other) / "spec.json").unlink()
    assert {state for _, state, _ in outcomes(more, store)} == {"done"}
    assert not store.model_folder(full).exists()


def test_a_run_whose_teacher_failed_is_not_tried(here, tmp_path):
    store = Store(tmp_path)
    expansion, full, _ = runs_of(here, store, counts=[1])
    store.folder(full).mkdir()
    (store.folder(full) / "failure.json").write_text(json.dumps({"traceback": "no memory"}))
    states = {digest: (state, line) for digest, state, line in outcomes(expansion, store)}
    (taught,) = (digest for digest, job in expansion.jobs.items() if job.spec.heal.steps)
    assert states[taught] == ("failed", f"the run of the full model that teaches it, {full}, failed: no memory")
    assert not store.folder(taught).exists()


def test_a_model_that_is_given_teaches_the_recipes_that_need_a_teacher(here, tmp_path):
    store = Store(tmp_path)
    expansion, _, others = runs_of(here, store, counts=[1], teacher={"custom": str(here / "given")})
    assert {state for _, state, _ in outcomes(expansion, store, save=True)} == {"done"}
    taught = {digest: job for digest, job in expansion.jobs.items() if job.spec.heal.steps}
    assert {job.spec.heal.teacher for job in taught.values()} == {locate(str(here / "given")).identity}
    assert len(taught) == 1 and len(others) == 2
    assert all(torch.equal(head(store.model_folder(digest)), head(here / "given")) for digest in taught)
    (plain,) = set(others) - set(taught)
    assert not torch.equal(head(store.model_folder(plain)), head(here / "given"))


def test_auto_is_taught_by_a_model_that_is_given_or_by_the_full_model(here, tmp_path):
    recipe = HealSpec(**QUICK, steps=parse_recipe("take-head"))
    more = {"strategies": ["top"], "options": TaskOptions(str(here / "rows.csv"), ("text",), "label"), "max_length": 16,
            "device": "cpu", "profile": False, "max_loss": 100.0}  # fmt: skip
    model = str(here / "model")
    found = auto(model, "custom", heal=recipe, teacher=here / "given", store=tmp_path / "given", **more)
    assert found.checkpoint is not None and found.dropped == (1, 2)
    assert torch.equal(head(found.checkpoint), head(here / "given"))

    found = auto(model, "custom", heal=recipe, store=tmp_path / "own", budget=1, **more)
    assert found.dropped and len(list((tmp_path / "own").glob("*/record.json"))) == 2
    assert not torch.equal(head(found.checkpoint), head(here / "given"))
    assert [path.parent.name for path in (tmp_path / "own").glob("*/model")] == [found.digest]
    with pytest.raises(UserError, match="give the teacher as a folder or id"):
        auto(model, "custom", heal=HealSpec(teacher="sha256:00"), store=tmp_path / "none", **more)


def test_auto_has_the_full_model_teach_unless_it_is_told_to_fine_tune(here, tmp_path):
    more = {"strategies": ["top"], "options": TaskOptions(str(here / "rows.csv"), ("text",), "label"), "max_length": 16,
            "device": "cpu", "profile": False, "max_loss": 100.0, "budget": 1, "store": tmp_path}  # fmt: skip
    taught = auto(str(here / "model"), "custom", heal=HealSpec(**QUICK), **more)
    plain = auto(str(here / "model"), "custom", heal=HealSpec(**QUICK, steps=parse_recipe("finetune")), **more)

    (step,) = taught.record["spec"]["heal"]["steps"]
    assert step["method"] == "distill" and plain.record["spec"]["heal"]["steps"] == []


def test_as_many_runs_as_cannot_fit_into_memory_together_are_refused(here, tmp_path):
    expansion, _, _ = runs_of(here, Store(tmp_path))
    jobs = list(expansion.jobs.values())
    check_jobs_memory(jobs, 2, available=10**6)
    with pytest.raises(UserError, match=r"^2 runs at a time need at least 0.\d MB of memory, and 0.1 MB are free"):
        check_jobs_memory(jobs, 2, available=10**5)
    check_jobs_memory(jobs[:1], 2, available=2 * 10**5)


@pytest.mark.parametrize(
    "more, message",
    [
        ({"heal": ["finetune", "take-hed"]}, "^heal: no healing method or recipe is named 'take-hed'; did you mean"),
        ({"heal": ["finetune", "finetune"]}, "^heal: two recipes are named 'finetune'"),
        ({"heal": ["finetune"], "teacher": "given"}, "^heal: a teacher is named, and no recipe has a step that"),
        ({"heal": [{"steps": "finetune", "teacher": "given"}]}, "^heal: the recipe 'default' names a teacher, and"),
        ({"teacher": {"mrcp": "given"}}, "^heal: teacher: no task is named 'mrcp'; did you mean 'mrpc'"),
        ({"teacher": {"mrpc": "given"}}, "'take-head' has teachers \\(mrpc\\) and none for the task 'custom'"),
        ({"teacher": 3}, "teacher: 3 is not a model"),
        ({"learning_rate": 2}, "^learning_rate 2 is out of range: it is between 0 and 1"),
        ({"kind": "amount"}, "^there is no kind 'amount'; it is one of classification, regression"),
    ],
)  # fmt: skip
def test_recipes_and_teachers_that_cannot_be_are_refused(more, message, here):
    with pytest.raises(UserError, match=message):
        grid(here, **more)


def test_entries_beside_the_recipes_hold_for_all_that_do_not_say_them(here):
    heal = ["finetune", {"name": "slow", "num_epochs": 4}, {"name": "taught", "steps": "take-head", "teacher": "own"}]
    spec = grid(here, heal=heal, teacher="given")
    assert {name: (each.num_epochs, each.batch_size) for name, each in spec.heal.items()} == {
        "finetune": (1, 8), "slow": (4, 8), "taught": (1, 8)}  # fmt: skip
    assert spec.teacher_of("taught", "custom") == "own" and spec.teacher_of("finetune", "custom") is None
    assert spec.options == TaskOptions(str(here / "rows.csv"), ("text",), "label")


def test_auto_trains_a_full_model_that_was_run_without_a_checkpoint_once_for_all_its_rounds(here, tmp_path):
    store = Store(tmp_path)
    plain, full, _ = runs_of(here, store, heal="finetune")
    assert {state for _, state, _ in outcomes(plain, store)} == {"done"}
    record = store.folder(full) / "record.json"
    written = [record.stat().st_mtime_ns]
    found = auto(
        *(str(here / "model"), "custom"), heal=HealSpec(**QUICK, steps=parse_recipe("take-head")), strategies=["top"],
        options=TaskOptions(str(here / "rows.csv"), ("text",), "label"), max_length=16, device="cpu", profile=False,
        max_loss=100.0, budget=2, workers=1, store=tmp_path,
        on_end=lambda digest, state, line: written.append(record.stat().st_mtime_ns),
    )  # fmt: skip
    assert found.complete and len(set(written)) == 2, "without its checkpoint, and with it"
