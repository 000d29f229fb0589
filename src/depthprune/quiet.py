"""Silence the progress bars and messages of libraries. Downloads still show theirs."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def no_progress(stage: str, done: int, total: int) -> None:
    """Do nothing: the default of `on_progress`."""


def quiet_libraries() -> None:
    """Silence libraries in this process and those that it starts."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # from libraries, about their dependencies
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    import datasets
    import huggingface_hub
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity_error()
    huggingface_hub.logging.set_verbosity_error()  # about its retries without a network


@contextmanager
def quietly() -> Iterator[None]:
    """Silence libraries while the context lasts, and restore the settings of the program afterwards."""
    import datasets
    import huggingface_hub
    from transformers.utils import logging

    loggers = (logging, datasets.utils.logging, huggingface_hub.logging)
    levels = [logger.get_verbosity() for logger in loggers]
    bars = logging.is_progress_bar_enabled(), datasets.are_progress_bars_disabled()
    environment = {name: os.environ.get(name) for name in ("TRANSFORMERS_VERBOSITY", "TOKENIZERS_PARALLELISM")}
    with warnings.catch_warnings():
        try:
            quiet_libraries()
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.set_verbosity(level)
            if bars[0]:
                logging.enable_progress_bar()
            if not bars[1]:
                datasets.enable_progress_bars()
            for name, value in environment.items():
                if value is None:
                    os.environ.pop(name, None)
