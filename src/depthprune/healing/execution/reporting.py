"""Services and files that trainings are reported to, through transformers' integrations (`report_to`)."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from depthprune.errors import UserError
from depthprune.registry import unknown

if TYPE_CHECKING:
    from transformers import Trainer

# What pip calls the package of an integration, by the name that transformers knows it by.
PACKAGES = {
    "azure_ml": "azureml-core",
    "clearml": "clearml",
    "codecarbon": "codecarbon",
    "comet_ml": "comet-ml",
    "dagshub": "dagshub",
    "dvclive": "dvclive",
    "flyte": "flytekit",
    "kubeflow": "kubeflow",
    "mlflow": "mlflow",
    "neptune": "neptune",
    "swanlab": "swanlab",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "wandb": "wandb",
}


def check_reporters(names: Iterable[str]) -> None:
    """Refuse integrations that transformers does not know, or whose package is missing, before anything is trained.

    Raises:
        UserError: the message has the known names, or what to install.
    """
    names = tuple(names)
    if not names:
        return
    from transformers.integrations import integration_utils

    known = integration_utils.INTEGRATION_TO_CALLBACK
    for name in names:
        if name not in known:
            raise unknown("integration of transformers to report to", name, sorted(known))
        available = name in integration_utils.get_available_reporting_integrations()
        if name in PACKAGES and not available and not (name == "flyte" and integration_utils.is_flytekit_available()):
            raise UserError(f"reporting to '{name}' needs its package: pip install {PACKAGES[name]}")


def log_into(trainer: "Trainer", folder: Path) -> None:
    """Let TensorBoard's files be written into a folder; `TENSORBOARD_LOGGING_DIR` names another one."""
    from transformers.integrations.integration_utils import TensorBoardCallback

    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(folder)
