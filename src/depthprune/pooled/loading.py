"""Load a model with the head that a task is to have: the architecture's own, or one on the pooled states."""

from typing import Any

from depthprune.errors import LoadError
from depthprune.loading import from_pretrained, load_classifier, load_config, load_tokenizer
from depthprune.pooled.folder import read_head
from depthprune.sources import POOLED_HEAD, ModelSource
from depthprune.specs.healing import ARCHITECTURE


def load_with_head(source: ModelSource, num_outputs: int, *, head: str, device: str = "cpu") -> tuple[Any, list[str]]:
    """Load a model with a head for sequence classification, in float32; one output is a regression.

    A trained head that the source brings is kept where it is of the kind and has the number of outputs.

    Args:
        head: `architecture`, or how the states are pooled.

    Returns:
        The model, and the names of the tensors that the checkpoint did not have and that are fresh.

    Raises:
        LoadError: the architecture has no such head, or the weights lack more than a head.
    """
    if head == ARCHITECTURE:
        return load_classifier(source, num_outputs, device=device)
    config = load_config(source)
    given = _given_head(source, config) if getattr(config, POOLED_HEAD, None) == head else None
    given = given if given is not None and len(given[1]) == num_outputs else None
    if config.num_labels != num_outputs:
        config.num_labels = num_outputs
    config.problem_type = "regression" if num_outputs == 1 else "single_label_classification"
    model, fresh = _load(source, config, head, dtype="float32")
    if given is not None:
        model.set_head(*given)
        fresh = []
    return model.to(device), fresh


def load_pooled(source: ModelSource, *, dtype: str = "auto") -> Any:
    """Load a model with the pooled head that its config.json names.

    Raises:
        LoadError: a tensor is missing, or the head does not fit.
    """
    config = load_config(source)
    head = _given_head(source, config)
    if len(head[1]) != config.num_labels:
        raise LoadError(
            f"config.json of '{source.name}' names {config.num_labels} outputs, and its head has {len(head[1])}; "
            "correct id2label there"
        )
    model, _ = _load(source, config, getattr(config, POOLED_HEAD), dtype=dtype)
    model.set_head(*head)
    return model


def _load(source: ModelSource, config: Any, pooling: str, *, dtype: str) -> tuple[Any, list[str]]:
    """Load the body, with a fresh head; returns the names of its tensors."""
    from depthprune.pooled.model import pooled_class

    setattr(config, POOLED_HEAD, pooling)
    chosen = pooled_class(config)
    model, info = from_pretrained(chosen, source, dtype=dtype, config=config)
    lacking = sorted({*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])})
    body = [name for name in lacking if name.startswith(f"{model.base_model_prefix}.")]
    if body:
        raise LoadError(
            f"the weights of '{source.name}' lack '{body[0]}' or hold it in another shape ({len(body)} such tensors), "
            "so its config.json does not describe them; download the model again"
        )
    if getattr(model.config, "pad_token_id", None) is None:
        model.config.pad_token_id = load_tokenizer(source).pad_token_id
    return model, lacking


def _given_head(source: ModelSource, config: Any) -> Any:
    """Return weight and bias of the trained head that a source brings.

    Raises:
        LoadError: it cannot be read, or reads states of another size.
    """
    weight_CD, bias_C = read_head(source.path)
    size = getattr(config.get_text_config(), "hidden_size", None)
    if weight_CD.shape[1] != size:
        raise LoadError(
            f"the head of '{source.name}' reads states of {weight_CD.shape[1]} dimensions, and the model's have "
            f"{size}; copy the folder again"
        )
    return weight_CD, bias_C
