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
    from depthprune.experiments.analyses import AnalysisResult as AnalysisResult
    from depthprune.experiments.analyses import probe as probe
    from depthprune.experiments.analyses import similarity as similarity
    from depthprune.experiments.engine import Engine as Engine
    from depthprune.experiments.prepare import Comparison as Comparison
    from depthprune.experiments.prepare import compare as run
    from depthprune.experiments.scoring import score_layers as score
    from depthprune.experiments.searching import SearchOptions as SearchOptions
    from depthprune.experiments.searching import search_layers as search
    from depthprune.plan import LayerPlan as LayerPlan
    from depthprune.scores import read_scores as read_scores
    from depthprune.specs import HealSpec as HealSpec
    from depthprune.surgery.bypass import bypassed as bypassed
    from depthprune.surgery.drop import drop_layers as drop_layers
    from depthprune.surgery.modules import find_stacks as find_stacks
    from depthprune.surgery.save import save_checkpoint as save_checkpoint
    from depthprune.tasks import TaskOptions as TaskOptions
    from depthprune.tasks.calibration import CalibrationOptions as CalibrationOptions

_HOMES = {
    "AnalysisResult": ("experiments.analyses", "AnalysisResult"),
    "Comparison": ("experiments.prepare", "Comparison"),
    "HealSpec": ("specs", "HealSpec"),
    "LayerPlan": ("plan", "LayerPlan"),
    "TaskOptions": ("tasks", "TaskOptions"),
    "UserError": ("errors", "UserError"),
    "bypassed": ("surgery.bypass", "bypassed"),
    "drop_layers": ("surgery.drop", "drop_layers"),
    "find_stacks": ("surgery.modules", "find_stacks"),
    "probe": ("experiments.analyses", "probe"),
    "run": ("experiments.prepare", "compare"),
    "score": ("experiments.scoring", "score_layers"),
    "search": ("experiments.searching", "search_layers"),
    "SearchOptions": ("experiments.searching", "SearchOptions"),
    "CalibrationOptions": ("tasks.calibration", "CalibrationOptions"),
    "Engine": ("experiments.engine", "Engine"),
    "read_scores": ("scores", "read_scores"),
    "save_checkpoint": ("surgery.save", "save_checkpoint"),
    "similarity": ("experiments.analyses", "similarity"),
    "strategies": ("strategies", None),
}

__all__ = [
    "AnalysisResult",
    "CalibrationOptions",
    "Comparison",
    "Engine",
    "HealSpec",
    "LayerPlan",
    "SearchOptions",
    "TaskOptions",
    "UserError",
    "bypassed",
    "drop_layers",
    "find_stacks",
    "probe",
    "read_scores",
    "run",
    "save_checkpoint",
    "score",
    "search",
    "similarity",
    "strategies",
]


def __getattr__(name: str):
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    home = import_module(f"{__name__}.{module}")
    return home if attribute is None else getattr(home, attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
