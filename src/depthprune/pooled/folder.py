"""The files of a pooled head: those of a sentence-transformers folder whose embeddings are the logits.

    config.json, model.safetensors    the body, as `AutoModel` writes and reads it
    modules.json                      Transformer, Pooling, Dense
    1_Pooling/config.json             how the last hidden states are pooled
    2_Dense/                          the linear layer, without an activation

`config.json` has the entry `pooled_head` as well, and the names of the outputs (`id2label`), which no file of
sentence-transformers has a place for. The rest are files that all versions of that library read.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthprune.errors import LoadError
from depthprune.result_file import replace_json
from depthprune.sources import HEAD_FOLDER

if TYPE_CHECKING:
    from torch import Tensor

    from depthprune.pooled.model import PooledClassifier

MODULES_FILE = "modules.json"
POOLING_FOLDER = "1_Pooling"
# Files and folders of sentence-transformers in a source that say what becomes of its states; a head has its own.
LIBRARY_PARTS = ("modules.json", "config_sentence_transformers.json", "sentence_*_config.json", "[0-9]_*/*")
WEIGHTS, IDENTITY = "model.safetensors", "torch.nn.modules.linear.Identity"
# Name of a pooling → entry of 1_Pooling/config.json.
ENTRIES = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


def write_modules(folder: Path, pooling: str, *, size: int, last: str) -> None:
    """Write modules.json and the configuration of the pooling, and make the folder of the last module.

    Args:
        pooling: one of `ENTRIES`.
        size: of the hidden states.
        last: class of the module after the pooling, such as `Normalize`; none if empty.
    """
    kinds = {"": "Transformer", POOLING_FOLDER: "Pooling"} | ({f"2_{last}": last} if last else {})
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds.items())
    ]
    replace_json(folder / MODULES_FILE, modules)
    for path in filter(None, kinds):
        (folder / path).mkdir(exist_ok=True)
    modes = {entry: name == pooling for name, entry in ENTRIES.items()}
    replace_json(folder / POOLING_FOLDER / "config.json", {"word_embedding_dimension": size, **modes})


def write_head(folder: Path, model: "PooledClassifier", *, source: Path) -> None:
    """Write the files of a model's head beside those of its body.

    Of what the source says about sentences only the longest text is kept: prompts and lower-casing would change what
    the head reads.

    Args:
        source: folder of the model that was trained.
    """
    from safetensors.torch import save_file

    outputs, size = model.classifier.weight.shape
    write_modules(folder, model.pooling, size=size, last="Dense")
    about = {"in_features": size, "out_features": outputs, "bias": True, "activation_function": IDENTITY}
    replace_json(folder / HEAD_FOLDER / "config.json", about)
    tensors = {"linear.weight": model.classifier.weight, "linear.bias": model.classifier.bias}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(tensors, folder / HEAD_FOLDER / WEIGHTS, metadata={"format": "pt"})
    longest = _read(source / "sentence_bert_config.json").get("max_seq_length")
    said: dict[str, Any] = {"max_seq_length": longest} if isinstance(longest, int) else {}
    if model.without_pooler:  # the library would make up a random one, and say so
        said["model_args"] = {"add_pooling_layer": False}
    if said:
        replace_json(folder / "sentence_bert_config.json", {**said, "do_lower_case": False})


def read_head(folder: Path) -> "tuple[Tensor, Tensor]":
    """Return weight [C, D] and bias [C] of the linear layer in a folder whose config.json names a pooled head.

    Raises:
        LoadError: it is not there, or something else than a linear layer.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    place, about = folder / HEAD_FOLDER, _read(folder / HEAD_FOLDER / "config.json")
    try:
        if about.get("activation_function") != IDENTITY or about.get("use_residual"):
            raise ValueError(f"its config.json says not that it is a linear layer with {IDENTITY}")
        tensors = load_file(place / WEIGHTS)
        weight_CD, bias_C = tensors["linear.weight"], tensors["linear.bias"]
        if weight_CD.dim() != 2 or bias_C.shape != weight_CD.shape[:1]:
            raise ValueError(f"its weight is {list(weight_CD.shape)} and its bias {list(bias_C.shape)}")
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise LoadError(
            f"config.json of '{folder}' names a pooled head, and '{place}' has none that can be read ({error}); copy "
            "the folder again, or remove 'pooled_head' from its config.json"
        ) from None
    return weight_CD, bias_C


def _read(file: Path) -> dict[str, Any]:
    """Return an object of JSON; an empty one where there is none."""
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
