"""Find a model on disk or on the Hub, check it before anything is loaded, and load it.

`locate` needs no torch; the loaders import it when called. Weights in pickle files run code when they are read, and
so does a repository's own modelling code: both are refused unless the caller allows them.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthprune.errors import LoadError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "chat_template.jinja",
)
WEIGHT_SUFFIXES = (".safetensors", ".bin")
HUB_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


@dataclass(frozen=True)
class ModelSource:
    """A checked model folder.

    Args:
        name: what the user called it: a path or a Hub id.
        path: the folder with its files.
        commit: the Hub commit, for a model from the Hub.
        config: the content of its config.json.
        allow_pickle: whether weights may be read from `.bin` files.
        trust_remote_code: whether code from the folder may run.
    """

    name: str
    path: Path
    commit: str | None
    config: dict[str, Any]
    allow_pickle: bool = False
    trust_remote_code: bool = False

    @property
    def weights(self) -> tuple[Path, ...]:
        """The files with the weights: safetensors where there are any."""
        for suffix in WEIGHT_SUFFIXES:
            files = tuple(sorted(f for f in self.path.glob(f"*{suffix}") if _is_weights(f)))
            if files:
                return files
        return ()

    @cached_property
    def identity(self) -> str:
        """What the model is, wherever it lies: the Hub commit, or the hash of configuration, weights and tokenizer."""
        if self.commit is not None:
            return f"hub:{self.name}@{self.commit}"
        digest = hashlib.sha256()
        tokenizer = (self.path / name for name in TOKENIZER_FILES)
        for file in (self.path / "config.json", *self.weights, *(f for f in tokenizer if f.is_file())):
            digest.update(f"{file.name}:{file.stat().st_size}:".encode())
            with file.open("rb") as stream:
                for block in iter(lambda: stream.read(1 << 20), b""):
                    digest.update(block)
        return f"sha256:{digest.hexdigest()}"


def locate(model: str, *, allow_pickle: bool = False, trust_remote_code: bool = False) -> ModelSource:
    """Find a local folder or a Hub id, and check that it holds a model that can be loaded.

    Raises:
        LoadError: no such folder or id, no configuration, no weights, weights in pickles, an unknown architecture.
    """
    path, commit = Path(model).expanduser(), None
    if not path.is_dir():
        if path.exists():
            raise LoadError(f"'{model}' is a file; give the folder that holds config.json and the weights")
        path, commit = _from_hub(model, allow_pickle)
    source = ModelSource(model, path, commit, _read_config(model, path), allow_pickle, trust_remote_code)
    _check_architecture(source)
    if not source.weights:
        raise LoadError(f"'{model}' has no weights (*.safetensors) beside its config.json; give a complete folder")
    if source.weights[0].suffix == ".bin" and not allow_pickle:
        raise LoadError(
            f"'{model}' has its weights in a pickle ({source.weights[0].name}), which can run code when it is read; "
            "if you trust it, add --allow-pickle"
        )
    return source


def _is_weights(file: Path) -> bool:
    """Tell weights from what lies beside them, such as training_args.bin, optimizer.bin or an adapter."""
    return file.suffix == ".safetensors" and "adapter" not in file.name or file.name.startswith("pytorch_model")


def _from_hub(model: str, allow_pickle: bool) -> tuple[Path, str]:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) or model.startswith((".", "~")):
        raise LoadError(f"there is no folder '{model}'; give a model folder or a Hub id such as bert-base-cased")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    patterns = [*HUB_PATTERNS, "*.bin"] if allow_pickle else HUB_PATTERNS
    try:
        path = Path(snapshot_download(model, allow_patterns=patterns))
    except RepositoryNotFoundError:
        raise LoadError(f"the Hub has no model '{model}', and there is no such folder here; check the name") from None
    except (LocalEntryNotFoundError, OSError):
        raise LoadError(
            f"there is no folder '{model}', and it can be neither reached on the Hub nor found in the cache; "
            "give a local folder, or connect to the network"
        ) from None
    except (HFValidationError, HfHubHTTPError) as error:
        raise LoadError(f"'{model}' cannot be read from the Hub: {str(error).splitlines()[0]}") from None
    return path, path.name  # a snapshot's folder is named after its commit


def _read_config(model: str, path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if not file.is_file():
        raise LoadError(f"'{model}' has no config.json; give the folder of a Hugging Face model")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise LoadError(f"the config.json of '{model}' is not JSON ({error}); fetch the model again") from None
    if not isinstance(config, dict):
        raise LoadError(f"the config.json of '{model}' is not an object; fetch the model again")
    return config


def _check_architecture(source: ModelSource) -> None:
    model_type = source.config.get("model_type")
    if "auto_map" in source.config and not source.trust_remote_code:
        raise LoadError(
            f"'{source.name}' brings its own modelling code (auto_map in config.json), which would run here; "
            "if you trust it, add --trust-remote-code"
        )
    if "auto_map" in source.config:
        return
    if not model_type:
        raise LoadError(f"the config.json of '{source.name}' names no model_type; give the folder of a transformers model")
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if model_type not in CONFIG_MAPPING_NAMES:
        from transformers import __version__

        raise LoadError(
            f"'{source.name}' is of the architecture '{model_type}', which transformers {__version__} does not know; "
            "a newer transformers may"
        )


def load_tokenizer(source: ModelSource) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of `source`.

    Raises:
        LoadError: it has none that can be read.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source.path, trust_remote_code=source.trust_remote_code)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise LoadError(
            f"the tokenizer of '{source.name}' cannot be loaded ({_first_line(error)}); copy its tokenizer files beside "
            "config.json, or pip install 'depthprune[sentencepiece]' if they are sentencepiece files"
        ) from None


def load_model(source: ModelSource) -> "PreTrainedModel":
    """Load the whole checkpoint, with the head it was saved with, in the dtype it was saved in.

    The class is the one that config.json names; where the checkpoint holds more than that class takes (a
    pre-training head, a pooler), the class of the architecture that takes all of it.

    Raises:
        LoadError: no class takes every tensor, or the checkpoint lacks some: saving it again would lose or invent
            weights.
    """
    first = None
    for model_class in _candidate_classes(source):
        model, info = from_pretrained(model_class, source)
        missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
        if not missing and not unexpected:
            return model
        first = first or (model_class.__name__, missing, unexpected)
    assert first is not None
    name, missing, unexpected = first
    what = f"lacks '{missing[0]}'" if missing else f"holds '{unexpected[0]}', which {name} has no place for"
    raise LoadError(
        f"'{source.name}' {what} ({len(missing)} tensors missing, {len(unexpected)} left over), so that saving it again "
        "would change it; name the class it was saved with in 'architectures' of its config.json"
    )


def _candidate_classes(source: ModelSource) -> list[Any]:
    import transformers
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(source.path, trust_remote_code=source.trust_remote_code)
    names = [name for name in source.config.get("architectures") or [] if hasattr(transformers, name)]
    classes = [getattr(transformers, name) for name in names]
    for auto in (transformers.AutoModelForPreTraining, transformers.AutoModel):
        found = auto._model_mapping.get(type(config), None)
        classes += list(found) if isinstance(found, list | tuple) else [found] if found else []
    unique = list(dict.fromkeys(classes))
    if not unique:
        raise LoadError(f"transformers has no model class for '{source.config.get('model_type')}'; use another model")
    return unique


def load_classifier(source: ModelSource, *, num_labels: int, regression: bool) -> tuple["PreTrainedModel", list[str]]:
    """Load `source` with a head for sequence classification or regression, in float32.

    A head that the checkpoint brings is kept where it has the right number of outputs.

    Returns:
        The model, and the names of the tensors that the checkpoint did not have and that are fresh.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(source.path, trust_remote_code=source.trust_remote_code)
    if type(config) not in AutoModelForSequenceClassification._model_mapping and not source.trust_remote_code:
        raise LoadError(
            f"transformers has no sequence-classification head for '{source.config.get('model_type')}'; "
            "use an encoder such as BERT, RoBERTa, XLNet or DistilBERT"
        )
    same_head = config.num_labels == num_labels
    extra: dict[str, Any] = {} if same_head else {"num_labels": num_labels}
    extra["problem_type"] = "regression" if regression else "single_label_classification"
    model, info = from_pretrained(AutoModelForSequenceClassification, source, dtype="float32", **extra)
    fresh = {*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])}
    if getattr(model.config, "pad_token_id", None) is None:
        model.config.pad_token_id = load_tokenizer(source).pad_token_id
    return model, sorted(fresh)


def from_pretrained(model_class: Any, source: ModelSource, *, dtype: str = "auto", **config: Any) -> tuple[Any, dict]:
    """Call `from_pretrained` with the safety choices of `source`; returns the model and its loading info."""
    try:
        return model_class.from_pretrained(
            source.path,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            use_safetensors=source.weights[0].suffix == ".safetensors",
            trust_remote_code=source.trust_remote_code,
            **config,
        )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise LoadError(f"the weights of '{source.name}' cannot be loaded: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
