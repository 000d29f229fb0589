"""depthprune makes pre-trained transformers shallower.

    depthprune.drop_layers(model, [8, 9])                                    # a model in memory
    depthprune.drop_checkpoint("bert-base-cased", "bert-10", [8, 9])         # its files, without loading it
    depthprune.run("bert-base-cased", "mrpc", strategy="greedy", count=4)    # choose, drop, fine-tune, compare
    depthprune.auto("bert-base-cased", "mrpc", max_loss=1.0)                 # the smallest within a point
    depthprune.train_once("bert-base-cased", "mrpc", "12,9,6")               # one training, three models

Names are resolved on first use: importing the package imports neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from depthprune import strategies as strategies
    from depthprune.checkpoints.drop import Decision as Decision
    from depthprune.checkpoints.drop import DroppedCheckpoint as DroppedCheckpoint
    from depthprune.checkpoints.drop import drop_checkpoint as drop_checkpoint
    from depthprune.checkpoints.save import save_checkpoint as save_checkpoint
    from depthprune.errors import UserError as UserError
    from depthprune.experiments.analyses.analyse import AnalysisResult as AnalysisResult
    from depthprune.experiments.analyses.analyse import probe as probe
    from depthprune.experiments.analyses.analyse import similarity as similarity
    from depthprune.experiments.choosing.engine import Engine as Engine
    from depthprune.experiments.choosing.score import score_layers as score
    from depthprune.experiments.choosing.search import SearchOptions as SearchOptions
    from depthprune.experiments.choosing.search import search_layers as search
    from depthprune.experiments.comparison import Comparison as Comparison
    from depthprune.experiments.comparison import compare as run
    from depthprune.experiments.comparison import finetune as finetune
    from depthprune.experiments.depths.curve import DepthCurve as DepthCurve
    from depthprune.experiments.depths.curve import train_once as train_once
    from depthprune.experiments.evaluate import Evaluation as Evaluation
    from depthprune.experiments.evaluate import evaluate as evaluate
    from depthprune.experiments.healed.heal import HealedCheckpoint as HealedCheckpoint
    from depthprune.experiments.healed.heal import heal as heal
    from depthprune.experiments.inspect import Inspection as Inspection
    from depthprune.experiments.inspect import inspect as inspect
    from depthprune.experiments.sweeps.auto import Answer as Answer
    from depthprune.experiments.sweeps.auto import auto as auto
    from depthprune.experiments.sweeps.sweep import SweepResult as SweepResult
    from depthprune.experiments.sweeps.sweep import sweep as sweep
    from depthprune.exporting import Exported as Exported
    from depthprune.exporting import export as export
    from depthprune.plan import LayerPlan as LayerPlan
    from depthprune.reporting.written import report as report
    from depthprune.scores import read_scores as read_scores
    from depthprune.specs import Execution as Execution
    from depthprune.specs import HealSpec as HealSpec
    from depthprune.surgery.bypass import bypassed as bypassed
    from depthprune.surgery.drop import drop_layers as drop_layers
    from depthprune.surgery.modules import find_stacks as find_stacks
    from depthprune.tasks import TaskOptions as TaskOptions
    from depthprune.tasks.data.calibration import CalibrationOptions as CalibrationOptions

_HOMES = {
    "AnalysisResult": ("experiments.analyses.analyse", "AnalysisResult"),
    "Answer": ("experiments.sweeps.auto", "Answer"),
    "CalibrationOptions": ("tasks.data.calibration", "CalibrationOptions"),
    "Comparison": ("experiments.comparison", "Comparison"),
    "Decision": ("checkpoints.drop", "Decision"),
    "DepthCurve": ("experiments.depths.curve", "DepthCurve"),
    "DroppedCheckpoint": ("checkpoints.drop", "DroppedCheckpoint"),
    "Engine": ("experiments.choosing.engine", "Engine"),
    "Evaluation": ("experiments.evaluate", "Evaluation"),
    "Execution": ("specs", "Execution"),
    "Exported": ("exporting", "Exported"),
    "HealSpec": ("specs", "HealSpec"),
    "HealedCheckpoint": ("experiments.healed.heal", "HealedCheckpoint"),
    "Inspection": ("experiments.inspect", "Inspection"),
    "LayerPlan": ("plan", "LayerPlan"),
    "SearchOptions": ("experiments.choosing.search", "SearchOptions"),
    "SweepResult": ("experiments.sweeps.sweep", "SweepResult"),
    "TaskOptions": ("tasks", "TaskOptions"),
    "UserError": ("errors", "UserError"),
    "auto": ("experiments.sweeps.auto", "auto"),
    "bypassed": ("surgery.bypass", "bypassed"),
    "drop_checkpoint": ("checkpoints.drop", "drop_checkpoint"),
    "drop_layers": ("surgery.drop", "drop_layers"),
    "evaluate": ("experiments.evaluate", "evaluate"),
    "export": ("exporting", "export"),
    "find_stacks": ("surgery.modules", "find_stacks"),
    "finetune": ("experiments.comparison", "finetune"),
    "heal": ("experiments.healed.heal", "heal"),
    "inspect": ("experiments.inspect", "inspect"),
    "probe": ("experiments.analyses.analyse", "probe"),
    "read_scores": ("scores", "read_scores"),
    "report": ("reporting.written", "report"),
    "run": ("experiments.comparison", "compare"),
    "save_checkpoint": ("checkpoints.save", "save_checkpoint"),
    "score": ("experiments.choosing.score", "score_layers"),
    "search": ("experiments.choosing.search", "search_layers"),
    "similarity": ("experiments.analyses.analyse", "similarity"),
    "strategies": ("strategies", None),
    "sweep": ("experiments.sweeps.sweep", "sweep"),
    "train_once": ("experiments.depths.curve", "train_once"),
}

__all__ = [
    "AnalysisResult",
    "Answer",
    "CalibrationOptions",
    "Comparison",
    "Decision",
    "DepthCurve",
    "DroppedCheckpoint",
    "Engine",
    "Evaluation",
    "Execution",
    "Exported",
    "HealSpec",
    "HealedCheckpoint",
    "Inspection",
    "LayerPlan",
    "SearchOptions",
    "SweepResult",
    "TaskOptions",
    "UserError",
    "auto",
    "bypassed",
    "drop_checkpoint",
    "drop_layers",
    "evaluate",
    "export",
    "find_stacks",
    "finetune",
    "heal",
    "inspect",
    "probe",
    "read_scores",
    "report",
    "run",
    "save_checkpoint",
    "score",
    "search",
    "similarity",
    "strategies",
    "sweep",
    "train_once",
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
