"""Load a checked model folder: its tokenizer, the whole checkpoint, or the body with a head for a task.

The libraries are imported when a function is called.
"""

import inspect
from typing import TYPE_CHECKING, Any

from depthprune.errors import LoadError, UserError
from depthprune.sources import POOLED_HEAD, VOCABULARY_FILES, ModelSource

POOLER = "pooler"
# Tables of learned positions, by the name of their module; other models know no longest text.
POSITIONS = ("position_embeddings", "embed_positions", "wpe")

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_tokenizer(source: ModelSource) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of `source`.

    Raises:
        LoadError: it has none that can be read.
    """
    from transformers import AutoTokenizer

    if not any((source.path / name).is_file() for name in VOCABULARY_FILES):
        raise LoadError(f"'{source.name}' has no tokenizer; put its tokenizer.json or vocabulary beside config.json")
    try:
        return AutoTokenizer.from_pretrained(source.path, trust_remote_code=source.trust_remote_code)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise LoadError(
            f"the tokenizer of '{source.name}' cannot be loaded ({_first_line(error)}); put its tokenizer files beside "
            "config.json, or pip install 'depthprune[sentencepiece]' if they are sentencepiece files"
        ) from None


def load_to_score(source: ModelSource) -> tuple["PreTrainedModel", list[str]]:
    """Load a model to be looked at and not saved: a pooler that the checkpoint lacks is fresh, and a head left out.

    Encoders are often saved without a pooler, which no layer's output goes through.

    Returns:
        The model, and the names of the fresh tensors.

    Raises:
        LoadError: no class takes every tensor, or the checkpoint lacks more than a pooler.
    """
    for candidate in _candidate_classes(source):
        model, info = from_pretrained(candidate, source)
        missing = sorted(info["missing_keys"])
        if not info["unexpected_keys"] and all(POOLER in name.split(".") for name in missing):
            return model, missing
    return load_model(source), []  # which says what is wrong


def load_model(source: ModelSource) -> "PreTrainedModel":
    """Load the whole checkpoint, with the head it was saved with, in the dtype it was saved in.

    The class is the one that config.json names; where the checkpoint holds more than that class takes (a
    pre-training head, a pooler), the class of the architecture that takes all of it. A checkpoint that lacks a pooler
    is loaded without one.

    Raises:
        LoadError: no class takes every tensor, or the checkpoint lacks some: saving it again would lose or invent
            weights.
    """
    first = None
    for candidate in _candidate_classes(source):
        model, info = from_pretrained(candidate, source)
        missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
        if missing and not unexpected and _only_a_pooler(candidate, missing):
            model, info = from_pretrained(candidate, source, add_pooling_layer=False)
            missing = sorted(info["missing_keys"])
        if not missing and not unexpected:
            return model
        first = first or (candidate.__name__, missing, unexpected)
    assert first is not None
    name, missing, unexpected = first
    what = f"lacks '{missing[0]}'" if missing else f"holds '{unexpected[0]}', which {name} has no place for"
    raise LoadError(
        f"'{source.name}' {what} ({len(missing)} tensors missing, {len(unexpected)} left over), so saving it again "
        "would change it; name the class it was saved with in 'architectures' of its config.json"
    )


def _only_a_pooler(candidate: Any, missing: list[str]) -> bool:
    """Tell whether a checkpoint lacks a pooler alone, and the class can be built without one."""
    takes = "add_pooling_layer" in inspect.signature(candidate.__init__).parameters
    return takes and all(POOLER in name.split(".") for name in missing)


def model_class(source: ModelSource) -> tuple[Any, Any]:
    """Return the class that config.json names, else the base class of the architecture, and the configuration."""
    return _candidate_classes(source)[0], load_config(source)


def load_config(source: ModelSource) -> Any:
    """Load the configuration through its class.

    Raises:
        LoadError: the class refuses a value.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(source.path, trust_remote_code=source.trust_remote_code)
    except (ValueError, TypeError, KeyError, OSError, ImportError) as error:
        raise LoadError(f"the config.json of '{source.name}' cannot be used: {_first_line(error)}") from None


def _candidate_classes(source: ModelSource) -> list[Any]:
    import transformers

    config = load_config(source)
    named = (getattr(transformers, name, None) for name in _architectures(source))
    classes = [*_remote_classes(source), *filter(_is_model, named)]
    for auto in (transformers.AutoModelForPreTraining, transformers.AutoModel):
        found = auto._model_mapping.get(type(config), None)
        classes += list(found) if isinstance(found, list | tuple) else [found] if found else []
    unique = list(dict.fromkeys(classes))
    if not unique:
        raise LoadError(f"transformers has no model class for '{source.config.get('model_type')}'; use another model")
    return unique


def _architectures(source: ModelSource) -> list[str]:
    """Return the names of classes in config.json, which may hold anything."""
    named = source.config.get("architectures")
    return [name for name in named if isinstance(name, str)] if isinstance(named, list) else []


def _is_model(found: Any) -> bool:
    """Tell a class of models from what else transformers has under a name: pipelines, tokenizers, abstract classes."""
    import torch
    from transformers import PreTrainedModel

    return (
        isinstance(found, type) and issubclass(found, PreTrainedModel) and found.forward is not torch.nn.Module.forward
    )


def _remote_classes(source: ModelSource) -> list[Any]:
    """Return the model classes that the folder brings, those that config.json names first; none unless trusted."""
    if not source.trust_remote_code:
        return []
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    references = [ref for auto, ref in source.config.get("auto_map", {}).items() if auto.startswith("AutoModel")]
    classes = [get_class_from_dynamic_module(reference, str(source.path)) for reference in references]
    named = _architectures(source)
    return sorted(classes, key=lambda found: found.__name__ not in named)


def load_classifier(source: ModelSource, num_outputs: int, *, device: str = "cpu") -> tuple[Any, list[str]]:
    """Load `source` with a head for sequence classification, in float32; one output is a regression.

    A head that the checkpoint brings is kept where it has the right number of outputs.

    Returns:
        The model, and the names of the tensors that the checkpoint did not have and that are fresh.

    Raises:
        LoadError: the architecture has no such head, or the weights lack more than a head.
    """
    from transformers import AutoModelForSequenceClassification

    config = load_config(source)
    if type(config) not in AutoModelForSequenceClassification._model_mapping and not source.trust_remote_code:
        raise LoadError(
            f"transformers has no sequence-classification head for '{source.config.get('model_type')}'; "
            "use an encoder such as BERT, RoBERTa, XLNet or DistilBERT"
        )
    extra: dict[str, Any] = {} if config.num_labels == num_outputs else {"num_labels": num_outputs}
    if hasattr(config, POOLED_HEAD):  # of a head that is not this one; None in the file counts as none
        extra[POOLED_HEAD] = None
    extra["problem_type"] = "regression" if num_outputs == 1 else "single_label_classification"
    model, info = from_pretrained(
        AutoModelForSequenceClassification, source, dtype="float32", ignore_mismatched_sizes=True, **extra
    )
    fresh = {*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])}
    # The head may be fresh, and the pooler, which pre-training often leaves out; nothing else of the body.
    body = sorted(n for n in fresh if n.startswith(f"{model.base_model_prefix}.") and "pooler" not in n)
    if body:
        raise LoadError(
            f"the weights of '{source.name}' lack '{body[0]}' or hold it in another shape ({len(body)} such tensors), "
            "so its config.json does not describe them; download the model again"
        )
    if getattr(model.config, "pad_token_id", None) is None:
        model.config.pad_token_id = load_tokenizer(source).pad_token_id
    return model.to(device), sorted(fresh)


def load_language_model(source: ModelSource, *, device: str = "cpu") -> Any:
    """Load `source` with its head for causal language modelling, in float32.

    Raises:
        LoadError: the architecture has no such head, or the checkpoint no trained one.
    """
    from transformers import AutoModelForCausalLM

    config = load_config(source)
    if type(config) not in AutoModelForCausalLM._model_mapping and not source.trust_remote_code:
        raise LoadError(
            f"transformers has no causal language model for '{source.config.get('model_type')}'; use a decoder such as "
            "GPT-2 or Llama"
        )
    model, info = from_pretrained(AutoModelForCausalLM, source, dtype="float32")
    fresh = sorted({*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])})
    if fresh:
        raise LoadError(
            f"'{source.name}' has no trained head for language modelling ('{fresh[0]}' is missing or has another "
            "shape); give a model that was saved with one"
        )
    return model.to(device)


def num_positions(model: Any) -> int | None:
    """Return how many tokens a model can take: what its table of learned positions holds; None without one."""
    from torch import nn

    found = []
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in POSITIONS and isinstance(module, nn.Embedding):
            # RoBERTa and its kin count positions from behind the one of padding; BART's add two.
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            found.append(module.num_embeddings - max(first, getattr(module, "offset", 0)))
    return min(found, default=None)


def check_positions(model: Any, longest: int, name: str, *, option: str = "--max-length") -> None:
    """Refuse texts that are longer than a model can take, before it fails in the middle of its code.

    Args:
        longest: tokens of the longest text.
        name: what the user called the model.
        option: what cuts texts.

    Raises:
        UserError: they are.
    """
    most = num_positions(model)
    if most is not None and longest > most:
        raise UserError(f"there is a text of {longest} tokens, and '{name}' takes {most}; give {option} {most} or less")


def from_pretrained(chosen: Any, source: ModelSource, *, dtype: str = "auto", **config: Any) -> tuple[Any, dict]:
    """Call `from_pretrained` with the safety choices of `source`; returns the model and its loading info."""
    from pickle import UnpicklingError

    from safetensors import SafetensorError

    try:
        return chosen.from_pretrained(
            source.path,
            dtype=dtype,
            output_loading_info=True,
            use_safetensors=source.weights[0].suffix == ".safetensors",
            trust_remote_code=source.trust_remote_code,
            **config,
        )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError, UnpicklingError) as error:
        raise LoadError(f"the weights of '{source.name}' cannot be loaded: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
