"""depthprune makes pre-trained transformers shallower.

    plan = depthprune.strategies.choose("top", depth=12, count=4)
    depthprune.drop_layers(model, plan)

Names are resolved on first use: importing the package imports neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from depthprune import strategies as strategies
    from depthprune.errors import UserError as UserError
    from depthprune.experiments.prepare import Comparison as Comparison
    from depthprune.experiments.prepare import compare as run
    from depthprune.plan import LayerPlan as LayerPlan
    from depthprune.specs import HealSpec as HealSpec
    from depthprune.surgery.bypass import bypassed as bypassed
    from depthprune.surgery.drop import drop_layers as drop_layers
    from depthprune.surgery.modules import find_stacks as find_stacks
    from depthprune.surgery.save import save_checkpoint as save_checkpoint
    from depthprune.tasks import TaskOptions as TaskOptions

_HOMES = {
    "Comparison": ("experiments.prepare", "Comparison"),
    "HealSpec": ("specs", "HealSpec"),
    "LayerPlan": ("plan", "LayerPlan"),
    "TaskOptions": ("tasks", "TaskOptions"),
    "UserError": ("errors", "UserError"),
    "bypassed": ("surgery.bypass", "bypassed"),
    "drop_layers": ("surgery.drop", "drop_layers"),
    "find_stacks": ("surgery.modules", "find_stacks"),
    "run": ("experiments.prepare", "compare"),
    "save_checkpoint": ("surgery.save", "save_checkpoint"),
    "strategies": ("strategies", None),
}

__all__ = [
    "Comparison",
    "HealSpec",
    "LayerPlan",
    "TaskOptions",
    "UserError",
    "bypassed",
    "drop_layers",
    "find_stacks",
    "run",
    "save_checkpoint",
    "strategies",
]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    home = import_module(f"{__name__}.{module}")
    return home if attribute is None else getattr(home, attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
