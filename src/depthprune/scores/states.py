"""Hidden states cached for reuse: in memory up to a limit, then on disk.

A hidden state depends only on the batch and on the layers that ran so far, which are its key; every plan that starts
with the same layers finds it.
"""

from collections import OrderedDict
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from torch import Tensor

from depthprune.errors import UserError
from depthprune.scratch import scratch_folder

Key = tuple[tuple[int, ...], int]  # layers that ran, in order; number of the batch

DEFAULT_MEMORY = 2 << 30


class StateStore:
    """A bounded store of tensors; a context manager that removes its files.

    Args:
        memory: bytes to keep in memory.
        folder: for states that do not fit, in a temporary folder inside it; if None, they are discarded and computed
            again.
    """

    def __init__(self, memory: int = DEFAULT_MEMORY, folder: Path | None = None):
        self._limit, self._parent = memory, folder
        self._folder: Path | None = None
        self._end = ExitStack()
        self._tensors: OrderedDict[Key, Tensor] = OrderedDict()  # least recently used first
        self._files: dict[Key, tuple[Path, str]] = {}
        self._written = 0
        self.bytes = 0

    def __enter__(self) -> "StateStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.keep(())
        self._end.close()

    def __contains__(self, key: Key) -> bool:
        return key in self._tensors or key in self._files

    def put(self, key: Key, state: Tensor, *, spill: bool) -> None:
        """Store a state.

        Args:
            spill: make room for it by moving others to disk; otherwise it is stored only if there is room.

        Raises:
            UserError: if there is no room on the disk either.
        """
        if key in self:
            return
        size = state.numel() * state.element_size()
        if self.bytes + size > self._limit and not (spill and self._parent is not None):
            return
        while self._tensors and self.bytes + size > self._limit:
            oldest, tensor = self._tensors.popitem(last=False)
            self.bytes -= tensor.numel() * tensor.element_size()
            self._write(oldest, tensor)
        if self.bytes + size > self._limit:
            self._write(key, state)
            return
        self._tensors[key] = state
        self.bytes += size

    def get(self, key: Key) -> Tensor:
        """Return a stored state, on its original device."""
        if key in self._tensors:
            self._tensors.move_to_end(key)
            return self._tensors[key]
        from safetensors.torch import load_file

        file, device = self._files[key]
        return load_file(file, device=device)["state"]

    def take(self, key: Key) -> Tensor:
        """Return a stored state and remove it."""
        state = self.get(key)
        if key in self._tensors:
            del self._tensors[key]
            self.bytes -= state.numel() * state.element_size()
        else:
            self._files.pop(key)[0].unlink(missing_ok=True)
        return state

    def keep(self, prefixes: Iterable[tuple[int, ...]], *, also: Iterable[tuple[int, ...]] = ()) -> None:
        """Remove every state whose layers are not a prefix of a given sequence or equal to one of `also`."""
        wanted = {sequence[:n] for sequence in prefixes for n in range(len(sequence) + 1)} | set(also)
        for key in [key for key in self._tensors if key[0] not in wanted]:
            tensor = self._tensors.pop(key)
            self.bytes -= tensor.numel() * tensor.element_size()
        for key in [key for key in self._files if key[0] not in wanted]:
            self._files.pop(key)[0].unlink(missing_ok=True)

    def _write(self, key: Key, state: Tensor) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        assert self._parent is not None
        try:
            if self._folder is None:
                self._parent.mkdir(parents=True, exist_ok=True)
                self._folder = self._end.enter_context(scratch_folder("states", within=self._parent))
            file = self._folder / f"{self._written}.safetensors"
            self._written += 1
            save_file({"state": state.contiguous()}, file)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"no room for hidden states in '{self._parent}' ({str(error).splitlines()[0]}); "
                "give another --cache-dir, more --cache-memory or fewer --samples"
            ) from None
        self._files[key] = (file, str(state.device))
