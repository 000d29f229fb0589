"""The files beside the weights of a checkpoint: which are copied with a cut, and which cannot be. No torch.

All are copied except other formats of the same weights, training state, pictures, hidden files, untrusted code, and the
files that a cut writes itself. A sentence-transformers folder (`modules.json`) has a transformer among other modules:
the transformer is cut, the others are copied unchanged.
"""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from depthprune.checkpoints.card import CARD_FILE
from depthprune.checkpoints.history import PROVENANCE_FILE
from depthprune.checkpoints.layout import file_inside
from depthprune.errors import CannotDropError, LoadError
from depthprune.sources import what_is_odd
from depthprune.surgery.config.depth import DEPTH_KEYS

MODULES_FILE = "modules.json"
WRITTEN_ANEW = ("config.json", "generation_config.json", CARD_FILE, PROVENANCE_FILE)
# Patterns for lower-case names. A subfolder with weights is an export of the whole model and is not copied.
WEIGHTS = (
    *("*.safetensors", "*.index.json", "*.bin", "*.pt", "*.pth", "*.ckpt*", "*.pkl", "*.pickle", "*.joblib", "*.npz"),
    *("*.h5", "*.hdf5", "*.keras", "*.msgpack", "*.ot", "*.onnx", "*.onnx_data*", "*.onnx.data", "*.tflite", "*.pb"),
    *("*.gguf", "*.ggml*", "*.llamafile", "*.imatrix", "*.mlmodel", "*.pdparams", "*.nemo", "*.engine", "*.dduf"),
    *("openvino_*.xml", "*.pte", "*.ptl", "adapter_config.json"),
)
OTHER_FORMATS = ("params.json",)  # the configuration of Meta's and Mistral's own formats: it says the depth again
TRAINING = (
    *("optimizer*", "scheduler*", "rng_state*", "random_states_*", "trainer_state.json", "training_args*", "*.log"),
    *("events.out.*", "all_results.json", "train_results.json", "eval_results.json", "zero_to_fp32.py"),
)
PICTURES = (
    *("*.png", "*.jpg", "*.jpeg", "*.gif", "*.webp", "*.svg", "*.bmp", "*.ico", "*.pdf"),
    *("*.mp4", "*.mov", "*.webm", "*.mp3", "*.wav", "*.flac"),
)
LEFT_FILES = (*WEIGHTS, *OTHER_FORMATS, *TRAINING, *PICTURES, "*.pyc", "*.incomplete", "*.lock")
LEFT_FOLDERS = (
    *("checkpoint-*", "global_step*", "runs", "logs", "wandb", "mlruns", "__pycache__"),
    *("original", "onnx", "openvino", "coreml", "*.mlpackage"),
)
# Files of quantisers that inference engines read and that may name modules, apart from config.json.
QUANTISER_FILES = (
    *("quantize_config.json", "quant_config.json", "quantization_config.json", "hf_quant_config.json"),
    *("quant_strategy.json", "kv_cache_scales.json"),
)
LAYER_NUMBER = re.compile(r"(?<![\d\s])\\?\.[\[(]*\d")  # as in layers.3 and .*\.[1-4]\., not as in version 1.4.0


def beside(folder: Path, *, python: bool = False) -> tuple[str, ...]:
    """Return the files to copy with a checkpoint, as sorted relative paths with `/`.

    Args:
        folder: the checkpoint.
        python: whether its own modelling code is trusted and copied too.

    Raises:
        LoadError: if a file is a symbolic link that points out of the folder, unless it points to the blobs of the
            Hub's cache.
    """
    names = (name for name in _walk(folder, "") if name not in WRITTEN_ANEW and (python or not name.endswith(".py")))
    return tuple(sorted(name for name in names if file_inside(folder, name)))


def _walk(folder: Path, inside: str) -> Iterator[str]:
    """Yield the files to copy below `inside`, which ends with a slash unless it is empty."""
    try:
        entries = [entry for entry in os.scandir(folder / inside) if not entry.name.startswith(".")]
    except OSError as error:
        raise LoadError(f"'{folder / inside}' cannot be read ({error.strerror}); fix that or give another") from None
    if inside and any(_matches(entry.name, WEIGHTS) for entry in entries):
        return
    for entry in entries:
        name = inside + entry.name
        if not entry.is_dir():
            if not _matches(entry.name, LEFT_FILES):
                yield name
        elif not _matches(entry.name, LEFT_FOLDERS):
            if entry.is_symlink():
                raise LoadError(f"'{folder / name}' is a link to a folder; copy the folder there, or remove it")
            yield from _walk(folder, name + "/")


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name.lower(), pattern) for pattern in patterns)


def check_travelling(folder: Path) -> None:
    """Check that the files of a folder can be copied, before the work begins.

    Raises:
        LoadError: see `beside` and `card_of`.
    """
    beside(folder)
    card_of(folder)


def copy_files(source: Path, target: Path, names: Iterable[str]) -> None:
    """Copy files of the folder `source` to the same places in `target`; symbolic links are resolved."""
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)


def card_of(folder: Path) -> str | None:
    """Return the card of a model, if it has one.

    Raises:
        LoadError: if it is a symbolic link that points out of the folder.
    """
    if not (folder / CARD_FILE).is_file():
        return None
    return file_inside(folder, CARD_FILE).read_text(encoding="utf-8", errors="replace")


def check_beside(folder: Path) -> None:
    """Refuse a checkpoint with a file that refers to layers by number, is read by inference engines, and is not
    rewritten.

    Raises:
        CannotDropError: if there is such a file; the message names it and its entry.
        LoadError: if such a file is not valid JSON.
    """
    for name in (name for name in QUANTISER_FILES if (folder / name).exists()):
        content = _read_json(file_inside(folder, name))
        named = [text for text in _texts(content) if LAYER_NUMBER.search(text)]
        if named or name == "kv_cache_scales.json":
            what = f"'{named[0]}'" if named else "every layer"
            raise CannotDropError(
                f"'{name}' beside the weights refers to {what} by number and cannot be rewritten; if config.json has "
                "the same in its quantization_config, remove the file"
            )
    for file in sorted(folder.glob("sentence_*_config.json")):
        content = _read_json(file_inside(folder, file.name))
        for key in ("config_args", "config_kwargs", "model_args", "model_kwargs"):
            entries = (content.get(key) if isinstance(content, dict) else None) or {}
            for entry in (entry for entry in DEPTH_KEYS if entry in entries):
                raise CannotDropError(
                    f"'{file.name}' sets {entry} = {entries[entry]!r} over config.json; remove that entry of '{key}'"
                )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _read_json(file: Path) -> Any:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LoadError(f"'{file}' cannot be read ({error}); download it again") from None
    if (odd := what_is_odd(value)) is not None:
        raise LoadError(f"'{file}' cannot be used: {odd}; download it again")
    return value


def find_transformer(folder: Path) -> Path | None:
    """Return where the transformer of a sentence-transformers folder is: the folder itself or a subfolder.

    Returns:
        The folder with its config.json and weights; None if `folder` is not a sentence-transformers folder.

    Raises:
        CannotDropError: if there is not exactly one transformer, or a module reads the hidden states of every layer.
        LoadError: if modules.json is broken or points out of the folder.
    """
    if not (folder / MODULES_FILE).exists():
        return None
    found = []
    for path, kind in _modules(folder):
        if kind in ("Router", "Asym"):
            raise CannotDropError(
                f"'{folder}' routes its inputs to several models ({kind}); cut the subfolder of the one you mean"
            )
        if kind == "WeightedLayerPooling":
            raise CannotDropError(f"'{path}' of '{folder}' weights the states of every layer, so none can be dropped")
        if (folder / path / "config.json").exists():
            config = _read_json(file_inside(folder / path, "config.json"))
            if isinstance(config, dict) and "model_type" in config:
                found.append(folder / path)
        elif (folder / path / "adapter_config.json").exists():
            raise CannotDropError(f"'{folder / path}' holds an adapter without its model; merge it and save it again")
    if len(found) != 1:
        names = ", ".join(f"'{place}'" for place in found) or "none of its modules has a config.json with a model_type"
        raise CannotDropError(f"'{folder}' has {len(found)} transformers to cut ({names}); give a folder that has one")
    return found[0]


def _modules(folder: Path) -> list[tuple[str, str]]:
    """Return (path, name of the class) of the modules in a sentence-transformers folder."""
    entries = _read_json(file_inside(folder, MODULES_FILE))
    modules = []
    for entry in entries if isinstance(entries, list) else [entries]:
        path, kind = (entry.get(key) for key in ("path", "type")) if isinstance(entry, dict) else (None, None)
        if not isinstance(path, str) or not isinstance(kind, str):
            raise LoadError(f"'{folder / MODULES_FILE}' is not a list of modules with path and type; download it again")
        if PurePosixPath(path).is_absolute() or PureWindowsPath(path).anchor or ".." in re.split(r"[\\/]", path):
            raise LoadError(f"'{folder / MODULES_FILE}' names '{path}', which is not a subfolder; do not use it")
        modules.append((path, kind.rpartition(".")[2]))
    return modules


def copy_others(source: Path, target: Path, *, transformer: Path, python: bool = False) -> tuple[str, ...]:
    """Copy a sentence-transformers folder without its transformer, which is cut, and without its card.

    Args:
        source: the folder.
        target: the folder to write to.
        transformer: what `find_transformer` gave.
        python: whether the folder's own code is trusted.

    Returns:
        What was copied, as paths in the folder.

    Raises:
        LoadError: if a file is a symbolic link that points out of the folder.
    """
    names = set(beside(source, python=python))  # a transformer in a subfolder is left out: it holds weights
    for path, _ in _modules(source):
        place = source / path
        if path and place != transformer and place.is_dir():
            found = (file.relative_to(source) for file in place.rglob("*") if file.is_file())
            names |= {file_inside(source, str(file)).relative_to(source).as_posix() for file in found}
    copy_files(source, target, sorted(names))
    return tuple(sorted(names))
