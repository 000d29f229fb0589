"""`depthprune drop` in full: several stacks, dry runs, proofs, histories, and what travels with a model."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, T5ForConditionalGeneration

from tiny_models import build, inputs, output, tiny_checkpoint


@pytest.fixture(scope="module")
def t5(tmp_path_factory) -> Path:
    sizes = {"vocab_size": 60, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 2, "decoder_start_token_id": 0}
    config = transformers.T5Config(**sizes, num_layers=4, num_decoder_layers=3)
    folder = tmp_path_factory.mktemp("models") / "t5"
    build(T5ForConditionalGeneration, config).save_pretrained(folder)
    return folder


def test_each_stack_is_cut_by_the_plan_that_names_it_and_the_logits_prove_it(command, t5, tmp_path):
    plan = ("--layers", "encoder=0,2", "--strategy", "top", "--count", "decoder=1")
    answer = command("drop", t5, *plan, "--output", "out", "--verify", "logits")

    assert answer.status == 0, answer
    assert "dropped layers 0,2 of 4 (encoder), kept 1,3" in answer.out
    assert "dropped layers 2 of 3 (decoder), kept 0-1" in answer.out
    assert re.search(r"proved: plain from_pretrained .*; \(2, 5, 60\) outputs are equal, bit for bit", answer.out)
    model, info = T5ForConditionalGeneration.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert (model.config.num_layers, model.config.num_decoder_layers) == (2, 2)


def test_a_bare_plan_for_several_stacks_names_them(command, t5, tmp_path):
    answer = command("drop", t5, "--layers", "1", "--output", "out")

    assert answer.status == 2 and not list(tmp_path.iterdir())
    assert "several stacks: 'encoder' (4 layers), 'decoder' (3 layers)" in answer.err


def test_the_cut_of_a_pickle_with_several_stacks_is_remembered_by_its_stacks(command, t5, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(t5, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    plan = ("--layers", "encoder=0,2", "--layers", "decoder=1", "--allow-pickle")

    answer = command("drop", folder, *plan, "--output", "out")

    assert answer.status == 0, answer
    (cut,) = json.loads((tmp_path / "out" / "depthprune.json").read_text())["cuts"]
    assert {name: entry["dropped"] for name, entry in cut["stacks"].items()} == {"encoder": [0, 2], "decoder": [1]}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| `encoder` | 4 → 2 | 0,2 | 1,3 |" in card and "| `decoder` | 3 → 2 | 1 | 0,2 |" in card
    answer = command("drop", "out", "--layers", "decoder=2", "--original-indices", "--dry-run")
    assert "dropped layers 1 of 2 (decoder), kept 0" in answer.out, answer


def test_a_dry_run_says_everything_and_writes_nothing(command, t5, tmp_path):
    answer = command("drop", t5, "--layers", "encoder=0", "--dry-run")

    assert answer.status == 0, answer
    assert (
        "goes   encoder.block.0  (8 tensors" in answer.out and "stays  encoder.block.1 → encoder.block.0" in answer.out
    )
    assert "relative_attention_bias.weight, with the new first layer" in answer.out
    assert "nothing written (proved: plain from_pretrained" in answer.out
    assert not list(tmp_path.iterdir())


def test_a_dry_run_tells_what_the_cache_takes(command, tmp_path):
    sizes = {"vocab_size": 60, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    config = transformers.LlamaConfig(**sizes, num_key_value_heads=1, num_hidden_layers=4)
    build(transformers.LlamaForCausalLM, config).save_pretrained(tmp_path / "llama")

    answer = command("drop", "llama", "--strategy", "top", "--count", 1, "--dry-run")

    # 4 layers × keys and values × 1 head × 8 dimensions × 4 bytes
    assert "cache: 256 → 192 bytes per token" in answer.out


def test_every_byte_can_be_compared(command, bert, tmp_path):
    answer = command("drop", bert, "--layers", "1", "--output", "out", "--verify", "full")
    assert answer.status == 0 and "every byte compared with the source" in answer.out


def test_a_byte_that_was_written_wrongly_is_found(command, bert, tmp_path, monkeypatch):
    from depthprune.checkpoints import stream

    right = stream.write_file

    def wrong(file, names, cut, **more):
        right(file, names, cut, **more)
        if not more.get("empty"):
            data = bytearray(file.read_bytes())
            data[-1] ^= 1
            file.write_bytes(data)

    monkeypatch.setattr(stream, "write_file", wrong)
    answer = command("drop", bert, "--layers", "1", "--output", "out", "--verify", "full")

    assert answer.status == 2 and "differs from the source" in answer.err
    assert not list(tmp_path.iterdir())


def test_layers_can_be_named_as_the_first_model_had_them(command, bert, tmp_path):
    command("drop", bert, "--layers", "1,3", "--output", "once")

    answer = command("drop", "once", "--layers", "4", "--original-indices", "--output", "twice")

    assert answer.status == 0, answer
    cuts = json.loads((tmp_path / "twice" / "depthprune.json").read_text())["cuts"]
    assert cuts[1]["stacks"]["layers"]["dropped"] == [2]
    assert cuts[1]["stacks"]["layers"]["original_kept"] == [0, 2, 5]
    again = command("drop", "twice", "--layers", "3", "--original-indices", "--output", "more")
    assert again.status == 2 and "already dropped" in again.err
    kept = command("drop", "once", "--keep", "0,5", "--original-indices", "--output", "kept")
    assert kept.status == 0 and AutoConfig.from_pretrained(tmp_path / "kept").num_hidden_layers == 2


def test_a_card_a_history_and_every_other_file_travel(command, tmp_path):
    folder = tiny_checkpoint(tmp_path / "model", num_layers=5)
    (folder / "LICENSE").write_text("be kind")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# The whole one\n")

    command("drop", folder, "--layers", "4", "--output", "out")

    assert (tmp_path / "out" / "LICENSE").read_text() == "be kind"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "license: mit" in card and "# The whole one" in card and "depthprune drop model --layers 4" in card
    assert str(tmp_path) not in card, "a card goes to other machines"


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft's own call
def test_an_adapter_is_cut_along_with_its_model(command, tmp_path):
    peft = pytest.importorskip("peft", reason="needs peft: pip install 'depthprune[adapters]'")
    folder = tiny_checkpoint(tmp_path / "model", num_layers=4)
    lora = peft.LoraConfig(target_modules=["query", "value"], r=2, init_lora_weights=False)
    adapted = peft.get_peft_model(AutoModel.from_pretrained(folder), lora).eval()
    adapted.save_pretrained(tmp_path / "lora")

    answer = command("drop", folder, "--layers", "1", "--output", "out", "--adapter", "lora")

    assert answer.status == 0, answer
    cut = AutoModel.from_pretrained(tmp_path / "out").eval()
    before = output(cut, inputs())
    both = peft.PeftModel.from_pretrained(cut, tmp_path / "out" / "adapters" / "lora").eval()
    layers = adapted.base_model.model.encoder.layer
    layers[1].register_forward_hook(lambda module, args, out: args[0])
    assert torch.equal(output(both, inputs()), output(adapted, inputs()))
    assert not torch.equal(output(both, inputs()), before)


def test_a_sentence_transformers_folder_is_cut_whole(command, minilm, tmp_path):
    sentences = pytest.importorskip("sentence_transformers")
    sentences.SentenceTransformer(minilm, device="cpu").save(str(tmp_path / "whole"))

    answer = command("drop", "whole", "--strategy", "top", "--count", 2, "--output", "out")

    assert answer.status == 0, answer
    cut = sentences.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert cut.encode(["a cat", "a dog"]).shape == (2, 384)
    assert len(cut[0].auto_model.encoder.layer) == 4


def test_albert_passes_fewer_times_through_its_layer(command, tmp_path):
    sizes = {"vocab_size": 60, "embedding_size": 8, "hidden_size": 16, "intermediate_size": 24}
    config = transformers.AlbertConfig(**sizes, num_attention_heads=2, num_hidden_layers=4)
    build(transformers.AlbertModel, config).save_pretrained(tmp_path / "albert")

    answer = command("drop", "albert", "--strategy", "top", "--count", 1, "--output", "out")

    assert answer.status == 0, answer
    assert "no parameters are dropped" in answer.out
    assert AutoConfig.from_pretrained(tmp_path / "out").num_hidden_layers == 3
    refused = command("drop", "albert", "--layers", "0", "--output", "other")
    assert refused.status == 2 and "--strategy top" in refused.err and not (tmp_path / "other").exists()


def test_a_vision_model_whose_file_names_are_not_its_modules_is_streamed(command, tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "image_size": 8, "patch_size": 4}
    model = build(transformers.ViTModel, transformers.ViTConfig(**sizes, num_hidden_layers=4))
    model.save_pretrained(tmp_path / "vit")

    answer = command("drop", "vit", "--layers", "1", "--output", "out", "--verify", "logits")

    assert answer.status == 0 and "outputs are equal, bit for bit" in answer.out


def test_a_quantiser_that_is_not_here_is_said(command, tmp_path):
    folder = tiny_checkpoint(tmp_path / "model", num_layers=4)
    config = json.loads((folder / "config.json").read_text())
    skipped = ["classifier", "encoder.layer.3.output"]
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "modules_in_block_to_quantize": [skipped]}
    (folder / "config.json").write_text(json.dumps(config))

    answer = command("drop", folder, "--layers", "1", "--output", "out")

    assert answer.status == 0, answer
    assert "its quantiser cannot run here" in answer.out
    written = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert written["modules_in_block_to_quantize"] == [["classifier", "encoder.layer.2.output"]]
