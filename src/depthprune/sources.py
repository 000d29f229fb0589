"""Find a model on disk or on the Hub, and check it before anything is loaded. No torch.

Pickled weights can run code when they are read, and so can a repository's own modelling code: both are refused unless
the caller allows them.
"""

import hashlib
import importlib.util
import json
import os
import re
import reprlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from depthprune.errors import LoadError

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
# At least one of these has the vocabulary. Without any, transformers 5 silently creates an empty tokenizer.
VOCABULARY_FILES = frozenset(TOKENIZER_FILES) - {
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
}
WEIGHT_SUFFIXES = (".safetensors", ".bin")
# Entry of config.json: how the states are pooled that a linear layer in this subfolder reads (`pooled.folder`).
POOLED_HEAD, HEAD_FOLDER = "pooled_head", "2_Dense"
SAY_NOTHING = ("model", "checkpoint", "output", "best", "")  # names of folders
DEEPEST = 50  # real configurations are nested up to six deep
HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # a lone surrogate, which cannot be written again
HUB_PATTERNS = [
    *("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.tiktoken", "*.vocab", "*.spm"),
    *("README.md", "LICENSE*", "NOTICE*"),
]


@dataclass(frozen=True)
class ModelSource:
    """A checked model folder.

    Args:
        name: as given by the user: a path or a Hub id.
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
        """The weights files: safetensors if there are any."""
        for suffix in WEIGHT_SUFFIXES:
            files = tuple(sorted(f for f in self.path.glob(f"*{suffix}") if _is_weights(f)))
            if files:
                return files
        return ()

    @property
    def title(self) -> str:
        """The model's name in tables: its Hub id or its folder's name, never a path.

        Names such as `model` are not informative; config.json may have a better one.
        """
        if self.commit is not None:
            return self.name
        folder = Path(os.path.abspath(self.path)).name
        remembered = str(self.config.get("_name_or_path") or "")
        is_name = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", remembered) and not Path(remembered).is_absolute()
        last = remembered.rpartition("/")[2]
        return last if folder in SAY_NOTHING and is_name and last not in SAY_NOTHING else folder

    @property
    def _head_files(self) -> tuple[Path, ...]:
        """The files of a pooled head; none for other models, whose identities know no such files."""
        return tuple(sorted((self.path / HEAD_FOLDER).glob("*"))) if self.config.get(POOLED_HEAD) else ()

    @cached_property
    def stamps(self) -> str:
        """Names, sizes, inodes and times of the folder's files: while they stay, on one machine, so does `identity`."""
        files = (file for file in (*self.path.iterdir(), *self._head_files) if file.is_file())
        found = ((file.name, (at := file.stat()).st_size, at.st_ino, at.st_mtime_ns) for file in files)
        return f"sha256:{hashlib.sha256(repr(sorted(found)).encode()).hexdigest()}"

    def recognise(self, identity: str, stamps: str) -> None:
        """Take over the identity that was found when the files had these stamps, where they still have them."""
        if self.stamps == stamps:
            vars(self)["identity"] = identity  # where `cached_property` would put it

    @cached_property
    def identity(self) -> str:
        """The model by content, wherever it is stored: the Hub commit, or the hash of configuration, weights and
        tokenizer."""
        if self.commit is not None:
            return f"hub:{self.name}@{self.commit}"
        _ = self.stamps  # before the files are read, so that a change meanwhile shows in them
        digest = hashlib.sha256()
        tokenizer = (self.path / name for name in TOKENIZER_FILES)
        files = (self.path / "config.json", *self.weights, *(f for f in tokenizer if f.is_file()), *self._head_files)
        for file in files:
            digest.update(f"{file.name}:{file.stat().st_size}:".encode())
            with file.open("rb") as stream:
                for block in iter(lambda: stream.read(1 << 20), b""):
                    digest.update(block)
        return f"sha256:{digest.hexdigest()}"


def locate(
    model: str | Path | ModelSource, *, allow_pickle: bool = False, trust_remote_code: bool = False
) -> ModelSource:
    """Find a local folder or a Hub id, and check that it is a model that can be loaded.

    A model that was located before is returned as it is, so that its weights are hashed once.

    Raises:
        LoadError: if there is no such folder or Hub id, the configuration or the weights are missing, the weights are
            pickles, or the architecture is unknown.
    """
    if isinstance(model, ModelSource):
        return model
    model = str(model)
    path, commit = Path(model).expanduser(), None
    if not path.is_dir():
        if path.exists():
            raise LoadError(f"'{model}' is a file; give the folder that holds config.json and the weights")
        path, commit = _from_hub(model, allow_pickle, trust_remote_code)
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
    """Return whether a file has weights, unlike training_args.bin, optimizer.bin or an adapter."""
    return (file.suffix == ".safetensors" and "adapter" not in file.name) or file.name.startswith("pytorch_model")


def _from_hub(model: str, allow_pickle: bool, trust_remote_code: bool) -> tuple[Path, str]:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) or model.startswith((".", "~")):
        raise LoadError(f"there is no folder '{model}'; give a model folder or a Hub id such as bert-base-cased")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    patterns = [*HUB_PATTERNS, *(["*.bin"] if allow_pickle else []), *(["*.py"] if trust_remote_code else [])]
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
    except (ValueError, RecursionError) as error:
        raise LoadError(f"the config.json of '{model}' is not JSON ({error}); download the model again") from None
    except OSError as error:
        raise LoadError(
            f"the config.json of '{model}' cannot be read ({error.strerror}); check its permissions"
        ) from None
    if not isinstance(config, dict):
        raise LoadError(f"the config.json of '{model}' is not an object; download the model again")
    if (odd := what_is_odd(config)) is not None:
        raise LoadError(f"the config.json of '{model}' cannot be used: {odd}; download the model again")
    return config


def what_is_odd(value: Any) -> str | None:
    """Return what is unusable in a value read from JSON, or None.

    >>> what_is_odd({"model_type": ["bert"]})
    "model_type is ['bert'], which is not text"
    """
    level, depth = [value], 0
    while level:
        if depth > DEEPEST:
            return f"it is nested more than {DEEPEST} levels deep"
        for item in level:
            kind = item.get("model_type") if isinstance(item, dict) else None
            if kind is not None and not isinstance(kind, str):
                return f"model_type is {reprlib.repr(kind)}, which is not text"
            for text in item if isinstance(item, dict | list) else (item,):
                if isinstance(text, str) and HALF_CHARACTER.search(text):
                    return f"{text[:50]!a} contains half a surrogate pair"
        level = [
            inner
            for item in level
            if isinstance(item, dict | list)
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        depth += 1
    return None


def _check_architecture(source: ModelSource) -> None:
    model_type = source.config.get("model_type")
    if not model_type:
        raise LoadError(
            f"the config.json of '{source.name}' names no model_type; give the folder of a transformers model"
        )
    # A known architecture is loaded with transformers' own code, whatever code the folder has.
    if is_known(model_type):
        return
    if "auto_map" in source.config:
        if not source.trust_remote_code:
            raise LoadError(
                f"'{source.name}' brings its own modelling code (auto_map in config.json), which would run here; "
                "if you trust it, add --trust-remote-code"
            )
    else:
        from transformers import __version__

        raise LoadError(
            f"'{source.name}' is of the architecture '{model_type}', which transformers {__version__} does not know; "
            "a newer transformers may"
        )


def is_known(model_type: str) -> bool:
    """Return whether transformers has an architecture: first by the source text of its table, since an import takes a
    second."""
    package = importlib.util.find_spec("transformers")
    for folder in (package.submodule_search_locations or []) if package is not None else []:
        table = Path(folder) / "models" / "auto" / "auto_mappings.py"
        if table.is_file() and f'("{model_type}", "' in table.read_text(encoding="utf-8"):
            return True
    from transformers.models.auto import configuration_auto

    return model_type in configuration_auto.CONFIG_MAPPING_NAMES  # pyright: ignore[reportPrivateImportUsage]
