"""Tiny models of every architecture, built from configurations: no network, no files, milliseconds each.

A new architecture is one row of `ARCHITECTURES`; every test that is parametrised over the table then covers it.
Weights are random everywhere, biases and norms too: an untouched bias of zero would hide a layer that was mixed up.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

DEPTH = 5
VOCABULARY_SIZE = 60
MAX_LENGTH = 32
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = tuple(f"{a}{b}" for a in "bdfgklmnprs" for b in ("a", "e", "i", "o", "u"))
assert len(SPECIAL_TOKENS) + len(WORDS) == VOCABULARY_SIZE
TOKEN_IDS = {token: i for i, token in enumerate((*SPECIAL_TOKENS, *WORDS))}
PAD, CLS, SEP = TOKEN_IDS["[PAD]"], TOKEN_IDS["[CLS]"], TOKEN_IDS["[SEP]"]

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": MAX_LENGTH + 8,
    "type_vocab_size": 2,
    "pad_token_id": PAD,
}
HEADS = ("base", "classification", "mlm")


@dataclass(frozen=True)
class Architecture:
    """A row of the table.

    Args:
        name: its `model_type`.
        prefix: what its classes in transformers start with.
        config: entries of the configuration, the depth aside.
        depth_key: the entry that holds the depth.
        needed: layers that cannot be dropped.
        pads_left: padding stands before the text, as XLNet wants it.
        mlm: end of the name of the class with a language-modelling head.
    """

    name: str
    prefix: str
    config: Mapping[str, Any] = field(default_factory=lambda: SIZES)
    depth_key: str = "num_hidden_layers"
    needed: tuple[int, ...] = ()
    pads_left: bool = False
    mlm: str = "ForMaskedLM"

    @cached_property
    def classes(self) -> dict[str, type[PreTrainedModel]]:
        """Head → class of the model."""
        ends = {"base": "Model", "classification": "ForSequenceClassification", "mlm": self.mlm}
        return {head: getattr(transformers, self.prefix + end) for head, end in ends.items()}

    def make_config(self, depth: int = DEPTH, **more: Any) -> PreTrainedConfig:
        """Return a tiny configuration; `more` overrides the table."""
        entries = {**self.config, self.depth_key: depth, **more}
        return getattr(transformers, self.prefix + "Config")(**entries)


_XLNET = {"vocab_size": VOCABULARY_SIZE, "d_model": 16, "n_head": 2, "d_inner": 24, "pad_token_id": PAD}
_DISTILBERT = {
    "vocab_size": VOCABULARY_SIZE,
    "dim": 16,
    "n_heads": 2,
    "hidden_dim": 24,
    "max_position_embeddings": MAX_LENGTH + 8,
    "pad_token_id": PAD,
}
_DEBERTA_V2 = {
    **SIZES,
    "relative_attention": True,
    "position_buckets": 4,
    "pos_att_type": ["c2p", "p2c"],
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "position_biased_input": False,
    "pooler_hidden_size": 16,
}
# A window of 4 tokens and two kinds of attention in turn: a layer that lands on the wrong kind shows in the output.
_MODERNBERT = {
    **SIZES,
    "local_attention": 4,
    "global_attn_every_n_layers": 3,
    "cls_token_id": CLS,
    "sep_token_id": SEP,
    "bos_token_id": CLS,
    "eos_token_id": SEP,
}

ARCHITECTURES = {
    row.name: row
    for row in (
        Architecture("bert", "Bert"),
        Architecture("roberta", "Roberta"),
        Architecture("xlnet", "XLNet", _XLNET, "n_layer", pads_left=True, mlm="LMHeadModel"),
        Architecture("distilbert", "DistilBert", _DISTILBERT, "n_layers"),
        Architecture("electra", "Electra", {**SIZES, "embedding_size": 8}),
        Architecture("deberta-v2", "DebertaV2", _DEBERTA_V2),
        Architecture("modernbert", "ModernBert", _MODERNBERT, needed=(0,)),
    )
}


def build(model_class: type[PreTrainedModel], config: PreTrainedConfig, *, seed: int = 0) -> PreTrainedModel:
    """Return a model with random weights, ready to be scored."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model.eval()


def tiny_model(name: str, head: str = "base", depth: int = DEPTH) -> PreTrainedModel:
    """Return the model of a row of the table."""
    row = ARCHITECTURES[name]
    return build(row.classes[head], row.make_config(depth))


def inputs(*, pads_left: bool = False) -> dict[str, torch.Tensor]:
    """Return two sequences, the second padded, of which no two tokens are alike."""
    long, short = [CLS, *range(5, 15), SEP], [CLS, *range(20, 26), SEP]
    padding = [PAD] * (len(long) - len(short))
    second = padding + short if pads_left else short + padding
    ids = torch.tensor([long, second])
    return {"input_ids": ids, "attention_mask": (ids != PAD).long()}


def output(model: PreTrainedModel, given: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the first output: logits, or the last hidden states of a model without a head."""
    with torch.no_grad():
        return model(**given)[0]


def tiny_tokenizer(*, pads_left: bool = False) -> PreTrainedTokenizerFast:
    """Return a tokenizer for `WORDS`, a token each: `[CLS] … [SEP]`, or `… [SEP] [CLS]` with padding on the left."""
    tokenizer = Tokenizer(models.WordLevel(dict(TOKEN_IDS), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [SEP] [CLS]" if pads_left else "[CLS] $A [SEP]",
        pair="$A [SEP] $B [SEP] [CLS]" if pads_left else "[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        padding_side="left" if pads_left else "right",
        model_max_length=MAX_LENGTH,
    )


def tiny_checkpoint(path: Path, model_type: str = "bert", head: str = "base", num_layers: int = 4) -> Path:
    """Write a checkpoint, model and tokenizer, to the folder `path` and return it."""
    tiny_model(model_type, head, num_layers).save_pretrained(path)
    tiny_tokenizer(pads_left=ARCHITECTURES[model_type].pads_left).save_pretrained(path)
    return path


def tiny_decoder(path: Path, num_layers: int = 4, kind: str = "llama") -> Path:
    """Write a causal language model and a tokenizer without a sentence token to the folder `path` and return it."""
    more: dict[str, Any] = {"num_key_value_heads": 2} if kind == "llama" else {"num_local_experts": 2}
    config = getattr(transformers, kind.capitalize() + "Config")(
        **{**SIZES, "num_hidden_layers": num_layers, "num_key_value_heads": 2, **more}
    )
    build(getattr(transformers, kind.capitalize() + "ForCausalLM"), config).save_pretrained(path)
    tokenizer = Tokenizer(models.WordLevel(dict(TOKEN_IDS), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=MAX_LENGTH
    ).save_pretrained(path)
    return path


def words(count: int, *, line: int = 12, seed: int = 0) -> str:
    """Return a text of `count` of the tokenizers' words, some to a line."""
    generator = torch.Generator().manual_seed(seed)
    chosen = [WORDS[int(i)] for i in torch.randint(0, len(WORDS), (count,), generator=generator)]
    return "\n".join(" ".join(chosen[start : start + line]) for start in range(0, count, line)) + "\n"
