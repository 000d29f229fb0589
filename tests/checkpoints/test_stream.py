"""Cutting a checkpoint as bytes, against the cut in memory (oracle C), and what is refused before a byte is written."""

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from depthprune.checkpoints.cut import plan_cut, stacks_in_plain_sight
from depthprune.checkpoints.drop import drop_checkpoint
from depthprune.checkpoints.history import provenance
from depthprune.checkpoints.layout import find_prefix, read_checkpoint
from depthprune.checkpoints.proof.client import Prover
from depthprune.checkpoints.save import save_checkpoint, save_made
from depthprune.errors import CannotDropError, LoadError
from depthprune.plan import LayerPlan
from depthprune.sources import ModelSource, locate
from depthprune.surgery import drop_layers
from depthprune.surgery.modules import UNCOMPARED
from depthprune.surgery.stacks import new_names
from tiny_models import ARCHITECTURES, tiny_checkpoint, tiny_model

PLAN = LayerPlan(5, (1, 3))


def source_of(folder: Path) -> ModelSource:
    return locate(str(folder))


def tensors_in(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def assert_same_tensors(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys() and one
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype and torch.equal(tensor, other[name]), name


def sharded(folder: Path, parts: int) -> Path:
    """Split the weights of a checkpoint over several files, with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for part in range(parts):
        name = f"model-{part + 1:05}-of-{parts:05}.safetensors"
        share = {n: t for i, (n, t) in enumerate(tensors.items()) if i % parts == part}
        save_file(share, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(share, name)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def edit_config(folder: Path, **entries) -> None:
    config = json.loads((folder / "config.json").read_text()) | entries
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_streamed_cut_is_the_cut_from_memory_tensor_for_tensor(name, tmp_path):
    folder = tiny_checkpoint(tmp_path / "model", name, head="classification", num_layers=5)
    whole = tiny_model(name, "classification", 5)
    save_checkpoint(drop_layers(whole, PLAN), tmp_path / "memory")

    drop_checkpoint(folder, tmp_path / "stream", PLAN)

    streamed = tensors_in(tmp_path / "stream")
    assert len(streamed) < len(tensors_in(folder))
    assert_same_tensors(streamed, tensors_in(tmp_path / "memory"))
    again, info = type(whole).from_pretrained(tmp_path / "stream", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    from_memory = type(whole.config).from_pretrained(tmp_path / "memory").to_dict()
    assert {k: v for k, v in again.config.to_dict().items() if k not in UNCOMPARED} == {
        k: v for k, v in from_memory.items() if k not in UNCOMPARED
    }


def test_shards_are_read_and_written_by_the_size_of_the_sources(tmp_path):
    folder = sharded(tiny_checkpoint(tmp_path / "model", num_layers=5), parts=3)
    largest = read_checkpoint(folder).shard_bytes
    whole = tensors_in(folder)

    drop_checkpoint(folder, tmp_path / "out", LayerPlan(5, (4,)))

    out = read_checkpoint(tmp_path / "out")
    assert out.sharded and len({t.file for t in out.tensors.values()}) > 1 and out.shard_bytes <= largest
    assert_same_tensors(tensors_in(tmp_path / "out"), {n: t for n, t in whole.items() if "layer.4." not in n})
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(t.num_bytes for t in out.tensors.values())
    assert AutoModel.from_pretrained(tmp_path / "out").config.num_hidden_layers == 4


def test_tensors_of_any_type_travel_as_bytes(tmp_path, cold_proofs):
    folder = tiny_checkpoint(tmp_path / "model", num_layers=5)
    tensors = load_file(folder / "model.safetensors")
    half = {name: tensor.bfloat16() if i % 2 else tensor for i, (name, tensor) in enumerate(tensors.items())}
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})

    drop_checkpoint(folder, tmp_path / "out", LayerPlan(5, (4,)))

    kept = {name: tensor for name, tensor in half.items() if "layer.4." not in name}
    assert {t.dtype for t in kept.values()} == {torch.bfloat16, torch.float32}
    assert_same_tensors(tensors_in(tmp_path / "out"), kept)


def test_a_list_that_the_configuration_leaves_to_a_formula_is_written_out(tmp_path):
    """ModernBERT-base on the Hub says global_attn_every_n_layers and no layer_types."""
    folder = tiny_checkpoint(tmp_path / "model", "modernbert", num_layers=5)
    kinds = json.loads((folder / "config.json").read_text())["layer_types"]
    assert kinds[2] != kinds[3], "layers of one kind would hide a wrong list"
    edit_config(folder, layer_types=None, global_attn_every_n_layers=3)

    drop_checkpoint(folder, tmp_path / "out", LayerPlan(5, (2,)))

    assert json.loads((tmp_path / "out" / "config.json").read_text())["layer_types"] == [kinds[i] for i in (0, 1, 3, 4)]


def test_a_refused_layer_is_named_and_nothing_is_left(tmp_path):
    folder = tiny_checkpoint(tmp_path / "model", "modernbert", num_layers=5)

    with pytest.raises(CannotDropError, match=r"dropping layer 0 of 'modernbert'.*attn_norm.*keep layer 0"):
        drop_checkpoint(folder, tmp_path / "new" / "out", LayerPlan(5, (0,)))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_configuration_that_the_rules_edit_wrongly_is_caught_by_the_second_reading(tmp_path, monkeypatch):
    from depthprune.checkpoints import cut

    folder = tiny_checkpoint(tmp_path / "model", "modernbert", num_layers=5)
    right = cut.edited
    monkeypatch.setattr(cut, "edited", lambda *a: {**right(*a), "layer_types": right(*a)["layer_types"][::-1]})

    with pytest.raises(CannotDropError, match=r"edited config\.json says layer_types"):
        drop_checkpoint(folder, tmp_path / "out", LayerPlan(5, (1,)))
    assert not (tmp_path / "out").exists()


def test_kept_layers_that_changed_places_are_caught_by_the_second_reading(tmp_path, monkeypatch):
    """Their names are the right ones, and so are their shapes: only the tensors behind the names are not."""
    from depthprune.checkpoints import cut

    def swapped(names, plans):
        change = {"encoder.layer.0.": "encoder.layer.2.", "encoder.layer.2.": "encoder.layer.0."}
        right = new_names(names, plans)
        return {n: change.get(new[:16], new[:16]) + new[16:] for n, new in right.items()}

    folder = tiny_checkpoint(tmp_path / "model", num_layers=5)
    monkeypatch.setattr(cut, "new_names", swapped)

    with pytest.raises(CannotDropError, match=r"'encoder\.layer\.2\..*copied from 'encoder\.layer\.0\..*wrong place"):
        drop_checkpoint(folder, tmp_path / "out", PLAN)
    assert not (tmp_path / "out").exists()


def test_a_depth_that_the_tensors_do_not_come_near_is_refused_before_a_model_is_built(tmp_path):
    folder = tiny_checkpoint(tmp_path / "model", num_layers=5)
    edit_config(folder, num_hidden_layers=90_000)

    with pytest.raises(LoadError, match=r"num_hidden_layers = 90000, and no list of layers .* has more than 5"):
        drop_checkpoint(folder, tmp_path / "out", LayerPlan(90_000, (1,)))


def test_the_child_outlives_the_thread_that_started_it(tmp_path, cold_proofs):
    folder = tiny_checkpoint(tmp_path / "model", num_layers=5)
    with ThreadPoolExecutor(max_workers=1) as pool:
        prover = pool.submit(Prover).result()

    with prover:
        prover.ask({"do": "describe", "source": str(folder), "trust_remote_code": False})
        assert [stack["name"] for stack in prover.answer()["stacks"]] == ["layers"]


@pytest.mark.parametrize("how", ["shrinks", "goes", "is overwritten in place"])
def test_weights_that_change_while_they_are_copied_are_refused(how, tmp_path, monkeypatch):
    from depthprune.checkpoints import stream

    folder = sharded(tiny_checkpoint(tmp_path / "model", num_layers=5), parts=3)
    file = folder / "model-00003-of-00003.safetensors"
    right = stream.write_file

    def disturbed(*arguments, **more):
        right(*arguments, **more)
        if not more.get("empty") and file.exists():
            if how == "shrinks":
                os.truncate(file, file.stat().st_size // 2)
            elif how == "goes":
                file.unlink()
            else:
                data = bytearray(file.read_bytes())
                data[-8:] = bytes(8)
                file.write_bytes(data)

    monkeypatch.setattr(stream, "write_file", disturbed)
    with pytest.raises(LoadError, match=r"00003.*(changed while it was copied|cannot be read|is missing)"):
        drop_checkpoint(folder, tmp_path / "out", PLAN)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("name", ["README.md", "depthprune.json", "chat_template.jinja"])
def test_a_link_that_leads_out_of_the_folder_is_refused_in_memory_and_as_bytes(name, tmp_path):
    folder = tiny_checkpoint(tmp_path / "model", num_layers=5)
    (tmp_path / "secret").write_text("{}")
    (folder / name).symlink_to(tmp_path / "secret")
    source = source_of(folder)

    with pytest.raises(LoadError, match=rf"{re.escape(name)}' is a symbolic link that points out of its folder"):
        drop_checkpoint(source, tmp_path / "bytes", PLAN)
    with pytest.raises(LoadError, match=rf"{re.escape(name)}' is a symbolic link that points out of its folder"):
        history = provenance(source, {"layers": PLAN})
        save_made(tiny_model("bert", depth=5), tmp_path / "memory", source=source, provenance=history)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "secret"]


def test_a_cut_from_memory_and_one_of_bytes_have_the_same_files_and_history_beside_their_weights(tmp_path):
    folder = tiny_checkpoint(tmp_path / "model", num_layers=5)
    (folder / "LICENSE").write_text("be kind")
    source = source_of(folder)

    drop_checkpoint(source, tmp_path / "bytes" / "cut", PLAN)
    cut, history = drop_layers(tiny_model("bert", depth=5), PLAN), provenance(source, {"layers": PLAN})
    save_made(cut, tmp_path / "memory" / "cut", source=source, provenance=history)

    bytes_, memory = tmp_path / "bytes" / "cut", tmp_path / "memory" / "cut"
    names = sorted(file.name for file in memory.iterdir())
    assert {"LICENSE", "README.md", "depthprune.json", "tokenizer.json"} <= set(names)
    assert sorted(file.name for file in bytes_.iterdir()) == names
    assert (bytes_ / "depthprune.json").read_bytes() == (memory / "depthprune.json").read_bytes()
    lines = (bytes_ / "README.md").read_text().splitlines()
    told = [line for line in lines if not line.startswith(("- Parameters", "depthprune drop"))]
    assert set((memory / "README.md").read_text().splitlines()) == {*told} - {"## How it was made", "```sh"}


def broken(kind: str, folder: Path) -> None:
    file = folder / "model.safetensors"
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    if kind == "cut short":
        file.write_bytes(data[:-10])
    elif kind == "no header":
        file.write_bytes(b"\xff" * 100)
    elif kind == "a gap":
        header = json.loads(data[8 : 8 + length])
        name = next(n for n, entry in header.items() if n != "__metadata__" and entry["data_offsets"][0] == 0)
        header[name]["data_offsets"][1] -= 4
        text = json.dumps(header).encode()
        file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    else:
        sharded(folder, 2)
        if kind == "a shard is missing":
            (folder / "model-00002-of-00002.safetensors").unlink()
        else:
            index = folder / "model.safetensors.index.json"
            entries = json.loads(index.read_text())
            entries["weight_map"].popitem()
            index.write_text(json.dumps(entries))


@pytest.mark.parametrize("kind", ["cut short", "no header", "a gap", "a shard is missing", "an index without a name"])
def test_broken_files_are_refused(kind, tmp_path):
    folder = tiny_checkpoint(tmp_path / "model", num_layers=5)
    broken(kind, folder)

    with pytest.raises(LoadError, match="download"):
        drop_checkpoint(folder, tmp_path / "out", PLAN)
    assert not (tmp_path / "out").exists()


def test_a_configuration_that_lies_outside_the_folder_is_refused(tmp_path):
    folder = tiny_checkpoint(tmp_path / "model", num_layers=5)
    (folder / "config.json").rename(tmp_path / "elsewhere")
    (folder / "config.json").symlink_to("../elsewhere")

    with pytest.raises(LoadError, match=r"config.json' is a symbolic link that points out of its folder"):
        drop_checkpoint(folder, tmp_path / "out", PLAN)
    assert not (tmp_path / "out").exists()


def test_every_tensor_is_kept_or_dropped_and_none_twice(tmp_path):
    folder = tiny_checkpoint(tmp_path / "model", num_layers=5)

    source, checkpoint = source_of(folder), read_checkpoint(folder)
    stacks = stacks_in_plain_sight(source, checkpoint)
    assert stacks is not None
    cut = plan_cut(source, {stacks["layers"]: PLAN}, checkpoint)

    assert len(cut.kept) + len(cut.dropped) == len(read_checkpoint(folder).tensors)
    assert all(name.startswith(("encoder.layer.1.", "encoder.layer.3.")) for name in (t.name for t in cut.dropped))
    assert cut.config["num_hidden_layers"] == 3


def test_a_stack_is_told_from_the_experts_inside_it():
    names = [f"model.layers.{i}.experts.{e}.w" for i in range(3) for e in range(3)]

    assert find_prefix(names, depth=3) == "model.layers"
    with pytest.raises(CannotDropError, match=r"several stacks of 3 layers \(other, stack\)"):
        find_prefix([f"{prefix}.{i}.w" for prefix in ("stack", "other") for i in range(3)], depth=3)


def test_the_tokenizer_travels_and_pickles_beside_it_do_not(tmp_path):
    folder = tiny_checkpoint(tmp_path / "model", num_layers=5)
    (folder / "training_args.bin").write_bytes(b"pickle")

    drop_checkpoint(folder, tmp_path / "out", PLAN)

    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert not (tmp_path / "out" / "training_args.bin").exists()
