"""Silence the progress bars and reports of libraries; the command has its own. Downloads still show theirs."""

import os
import warnings


def no_progress(stage: str, done: int, total: int) -> None:
    """Say nothing of how far a stage is: what `on_progress` does where nothing else is given."""


def quiet_libraries() -> None:
    """Do it, for this process and those that it starts."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries, about their own dependencies
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    import datasets
    import huggingface_hub
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity_error()
    huggingface_hub.logging.set_verbosity_error()  # its retries, when there is no network
