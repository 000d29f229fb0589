"""Load a model one layer at a time, for models larger than memory.

Everything outside the stack is loaded once; a layer is loaded when it is asked for and freed with its last reference.
transformers does the loading, including renamed and fused tensors: it is given a class whose other layers are empty,
and only the remaining tensors.
"""

import os
from collections.abc import Iterable
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from depthprune.checkpoints.layout import Checkpoint, find_prefix, read_checkpoint
from depthprune.errors import CannotDropError, LoadError
from depthprune.loading import model_class
from depthprune.plan import choose_stack
from depthprune.sources import ModelSource
from depthprune.surgery.modules import REFUSALS, first_line, probe_stacks
from depthprune.surgery.stacks import ModuleStack, TensorPrefix, TensorStack, depths_of


class PiecewiseModel:
    """A checkpoint whose layers are loaded one at a time.

    Args:
        source: a model with its weights in safetensors files.
        stack: which stack, for a model with several.
        dtype: of the weights: `auto` for that of the checkpoint, or a name such as `float32`.

    Attributes:
        model: the model with everything outside the stack loaded and empty layers.
        stack: the stack.

    Raises:
        LoadError: if the weights are not in safetensors files, or do not fit the class.
        CannotDropError: if the tensor names do not show which layer they belong to.
    """

    def __init__(self, source: ModelSource, stack: str | None = None, *, dtype: str = "auto"):
        if source.weights[0].suffix != ".safetensors":
            raise LoadError("--layerwise needs safetensors files; save the model with save_pretrained")
        self._source = source
        self._class, self._config = model_class(source)
        stacks = probe_stacks(self._class, self._config)
        self.stack = stacks[choose_stack(depths_of(stacks), stack, advice="say which one with --stack")]
        if len(self.stack.paths) != 1:
            raise CannotDropError("--layerwise needs layers that are modules of their own; leave it out")
        if dtype == "auto":
            dtype = self._config.dtype or source.config.get("dtype") or source.config.get("torch_dtype") or "float32"
        self._dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        checkpoint = read_checkpoint(source.path)
        prefix = _prefix(self.stack, self._class.base_model_prefix, checkpoint)
        self._checkpoint, self._layers = checkpoint, TensorStack("", (prefix,), "", self.stack.depth)
        outside = [name for name in checkpoint.tensors if self._layers.layer_of(name) is None]
        self._outside = self._read(outside)
        self._advise(0, "POSIX_FADV_WILLNEED")
        self.model = self._load(self._outside, keep=None)

    def layer(self, index: int) -> nn.Module:
        """Load a layer.

        Returns:
            The module, in evaluation mode, with its weights on the CPU.
        """
        loaded = self._load({**self._outside, **self._read(self._names(index))}, keep=index)
        self._advise(index + 1, "POSIX_FADV_WILLNEED")
        self._advise(index - 1, "POSIX_FADV_DONTNEED")
        return loaded.get_submodule(f"{self.stack.path}.{index}")

    def _names(self, index: int) -> list[str]:
        return [name for name in self._checkpoint.tensors if (self._layers.layer_of(name) or (-1,))[0] == index]

    def _advise(self, index: int, advice: str) -> None:
        """Advise the system which layer is needed next, so that it is read from disk while this one computes."""
        if not hasattr(os, "posix_fadvise"):
            return
        for name in self._names(index):
            tensor = self._checkpoint.tensors[name]
            with tensor.file.open("rb") as opened:
                os.posix_fadvise(opened.fileno(), tensor.start, tensor.num_bytes, getattr(os, advice))

    def _read(self, names: Iterable[str]) -> dict[str, Tensor]:
        by_file: dict[Any, list[str]] = {}
        for name in names:
            by_file.setdefault(self._checkpoint.tensors[name].file, []).append(name)
        read = {}
        for file, wanted in by_file.items():
            with safe_open(file, framework="pt") as opened:
                read.update({name: opened.get_tensor(name) for name in wanted})
        return read

    def _load(self, tensors: dict[str, Tensor], *, keep: int | None) -> PreTrainedModel:
        chosen = _with_empty_layers(self._class, self.stack, keep)
        try:
            loaded: Any = chosen.from_pretrained(
                None, config=self._config, state_dict=tensors, dtype=self._dtype, output_loading_info=True
            )
        except REFUSALS as error:
            raise LoadError(f"'{self._source.name}' cannot be loaded by layers: {first_line(error)}") from None
        model, info = loaded
        missing = sorted(info["missing_keys"])
        if missing or info["mismatched_keys"]:
            raise LoadError(
                f"'{self._source.name}' cannot be loaded by layers: '{(missing or info['mismatched_keys'])[0]}' "
                "was not found; leave --layerwise out"
            )
        return model.eval()


def _with_empty_layers(base: type[PreTrainedModel], stack: ModuleStack, keep: int | None) -> type[PreTrainedModel]:
    """Return `base` with empty modules for all layers of a stack but one."""

    def __init__(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        base.__init__(self, config, *args, **kwargs)
        layers: Any = self.get_submodule(stack.path)
        for i in range(stack.depth):
            if i != keep:
                layers[i] = nn.Identity()

    # The original's __name__ and __module__: transformers looks up its renaming rules by them.
    return type(base.__name__, (base,), {"__init__": __init__, "__module__": base.__module__})


def _prefix(stack: ModuleStack, base: str, checkpoint: Checkpoint) -> TensorPrefix:
    """Return what stands before the index of a layer in the names of the checkpoint's tensors."""
    for candidate in map(TensorPrefix, (stack.path, stack.path.removeprefix(f"{base}."), f"{base}.{stack.path}")):
        found = TensorStack("", (candidate,), "", stack.depth)
        if {(found.layer_of(name) or (None,))[0] for name in checkpoint.tensors} - {None} == set(range(stack.depth)):
            return candidate
    return find_prefix(checkpoint.tensors, stack.depth)
