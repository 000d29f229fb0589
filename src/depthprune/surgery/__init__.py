"""Change the depth of a model: find its stacks, drop layers, prove the result.

Names are resolved on first use, so that the torch-free part (`config`) can be imported without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from depthprune.surgery.bypass import bypassed as bypassed
    from depthprune.surgery.drop import drop_layers as drop_layers
    from depthprune.surgery.modules import find_stacks as find_stacks

_HOMES = {"bypassed": "bypass", "drop_layers": "drop", "find_stacks": "modules"}

__all__ = ["bypassed", "drop_layers", "find_stacks"]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
