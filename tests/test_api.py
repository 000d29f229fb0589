"""The package as a library: what is right is taken in every usual form, what is wrong is told in one line of ours."""

# pyright: reportArgumentType=false, reportCallIssue=false  # wrong on purpose

import inspect
import warnings

import pytest
import torch

import depthprune
from depthprune import LayerPlan, UserError
from depthprune.arguments import checked
from tiny_models import ARCHITECTURES, build, tiny_checkpoint


@pytest.fixture
def model():
    from transformers import BertModel

    return build(BertModel, ARCHITECTURES["bert"].make_config(5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "bert", num_layers=4)


def test_a_list_of_layers_is_a_plan(model):
    assert depthprune.drop_layers(model, [1, 3]).config.num_hidden_layers == 3
    assert depthprune.drop_layers(model, {"layers": range(2)}).config.num_hidden_layers == 1


def test_a_list_of_layers_drops_what_the_plan_with_them_drops(model):
    import copy

    other = depthprune.drop_layers(copy.deepcopy(model), LayerPlan(5, (0, 4)))
    depthprune.drop_layers(model, [4, 0])
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_a_list_of_layers_needs_one_stack():
    from transformers import T5Config, T5Model

    t5 = T5Model(T5Config(vocab_size=32, d_model=8, d_kv=4, d_ff=8, num_layers=2, num_decoder_layers=2, num_heads=2))
    with pytest.raises(UserError, match="several stacks"):
        depthprune.drop_layers(t5, [1])


def test_a_checkpoint_is_cut_in_files_and_what_was_written_is_told(folder, tmp_path):
    done = depthprune.drop_checkpoint(str(folder), str(tmp_path / "out"), [1, 3])

    assert done.path == tmp_path / "out" and done.plans == {"layers": LayerPlan(4, (1, 3))} and done.adapters == ()
    assert done.parameters[0] > done.parameters[1] and done.num_bytes[0] > done.num_bytes[1]
    card = (done.path / "README.md").read_text(encoding="utf-8")
    assert f"Proof: {done.proof}" in card and "depthprune drop bert --layers 1,3 --output DIR" in card


CALLS = {
    "layers of a checkpoint as text": (
        lambda model, folder: depthprune.drop_checkpoint(folder, folder / "out", "1,2"),
        "drop_checkpoint: plan is a LayerPlan, a list of whole numbers, a dictionary, a Decision or a function, not",
    ),
    "a single adapter where several are due": (
        lambda model, folder: depthprune.drop_checkpoint(folder, folder / "out", [1], adapters="lora"),
        "drop_checkpoint: adapters is a list of ",
    ),
    "a way to verify that does not exist": (
        lambda model, folder: depthprune.drop_checkpoint(folder, folder / "out", [1], verify="twice"),
        "there is no --verify 'twice'; it is one of headers, full, logits",
    ),
    "a target inside the source": (
        lambda model, folder: depthprune.drop_checkpoint(folder, folder / "out", [1]),
        "is inside the model's own folder",
    ),
    "a folder where a model is due": (
        lambda model, folder: depthprune.drop_layers(str(folder), [1]),
        "drop_layers: model is a PreTrainedModel, not '",
    ),
    "a single layer": (
        lambda model, folder: depthprune.drop_layers(model, 3),
        "plan is a LayerPlan, a list of whole numbers or a dictionary, not 3",
    ),
    "layers as text": (lambda model, folder: depthprune.drop_layers(model, "1,2"), "plan is a LayerPlan, a list"),
    "layers that are no numbers": (
        lambda model, folder: depthprune.drop_layers(model, ["one"]),
        "a plan is a depth and a list of layers",
    ),
    "a layer that does not exist": (lambda model, folder: depthprune.drop_layers(model, [7]), "layers 0 to 4"),
    "a depth that is no number": (lambda model, folder: LayerPlan("12", (1,)), "a plan is a depth and a list"),
    "no list of layers": (lambda model, folder: LayerPlan(12, 8), "as in LayerPlan(12, [8, 9]), not 12 and 8"),
    "a count that is no number": (
        lambda model, folder: depthprune.strategies.choose("top", 12, "two"),
        "strategies.choose: count is a whole number, not 'two'",
    ),
    "a strategy that is no name": (
        lambda model, folder: depthprune.strategies.choose(None, 12, 2),
        "strategies.choose: name is text, not None",
    ),
    "a model in memory where a folder is due": (
        lambda model, folder: depthprune.run(model, "mrpc"),
        "run: model is text or a path, not a BertModel; a model in memory is cut with depthprune.drop_layers",
    ),
    "a count of a run that is no number": (
        lambda model, folder: depthprune.run(str(folder), "docstrings", strategy="top", count="two"),
        "run: count is a whole number or None, not 'two'",
    ),
    "a recipe of the wrong kind": (
        lambda model, folder: depthprune.run(str(folder), "docstrings", heal={"num_epochs": 1}),
        "run: heal is a HealSpec or None, not a dict",
    ),
    "an entry of a recipe of the wrong kind": (
        lambda model, folder: depthprune.run(str(folder), "docstrings", heal=depthprune.HealSpec(num_epochs="one")),
        "run: heal.num_epochs is a number, not 'one'",
    ),
    "an argument that does not exist": (
        lambda model, folder: depthprune.run(str(folder), "docstrings", layer=[1]),
        "run: got an unexpected keyword argument 'layer'; it is called as run(model, task, …)",
    ),
    "an argument that is missing": (
        lambda model, folder: depthprune.score(str(folder)),
        "score: missing a required argument: 'method'; it is called as score(model, method, data, …)",
    ),
    "no counts of a search": (
        lambda model, folder: depthprune.search(str(folder), "greedy", "mrpc", depthprune.SearchOptions(2)),
        "search: options.counts is a list of whole numbers, not 2",
    ),
    "a metric that is no name": (
        lambda model, folder: depthprune.score(folder, None, "mrpc"),
        "score: method is text, not None",
    ),
}


@pytest.mark.parametrize("call, message", CALLS.values(), ids=list(CALLS))
def test_what_is_of_the_wrong_kind_is_refused_in_one_line_of_ours(call, message, model, folder):
    with pytest.raises(UserError) as caught:
        call(model, folder)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", depthprune.__all__)
def test_signatures_read_well(name):
    part = getattr(depthprune, name)
    if callable(part) and not (isinstance(part, type) and issubclass(part, Exception)):
        assert "lambda" not in str(inspect.signature(part)) and (part.__doc__ or "").strip()


def test_paths_are_text_or_paths_everywhere(folder, tmp_path):
    data = tmp_path / "text.txt"
    data.write_text("ba be bi\nbe bo\n" * 4)
    sample = depthprune.CalibrationOptions(str(data), samples=4, length=8)
    engine = depthprune.Engine(cache_memory=0, cache_dir=str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    found = depthprune.search(
        folder, "greedy", sample, depthprune.SearchOptions((1,)), engine=engine, trace=str(tmp_path / "t.jsonl")
    )
    assert found == depthprune.search(str(folder), "greedy", sample, depthprune.SearchOptions((1,))) or found.plans


def test_libraries_are_quiet_while_we_work_and_as_they_were_afterwards():
    import datasets
    from transformers.utils import logging

    from depthprune.quiet import quietly

    logging.set_verbosity_info()
    logging.enable_progress_bar()
    datasets.enable_progress_bars()
    before = list(warnings.filters)
    with pytest.raises(UserError), quietly():
        assert logging.get_verbosity() == logging.ERROR and datasets.are_progress_bars_disabled()
        assert not logging.is_progress_bar_enabled()
        raise UserError("whatever happens")
    assert logging.get_verbosity() == logging.INFO and logging.is_progress_bar_enabled()
    assert not datasets.are_progress_bars_disabled() and warnings.filters == before
    logging.set_verbosity_warning()


def test_what_cannot_be_checked_counts_as_right():
    @checked("call")
    def call(one: "NotThere", *more: int, **named: str) -> None:  # noqa: F821  # pyright: ignore
        assert one == 1 and more == ("a",) and named == {"b": 2}

    call(1, "a", b=2)


def test_importing_the_package_tells_its_version():
    from importlib.metadata import version

    assert depthprune.__version__ == version("depthprune")
