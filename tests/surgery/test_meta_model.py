"""Building a model without weights changes nothing outside of it."""

import logging

from transformers import BertModel
from transformers.utils import logging as transformers_logging

from depthprune.surgery.modules import meta_model
from tiny_models import ARCHITECTURES

said: list[str] = []
levels: list[int] = []


class Talking(BertModel):
    """Says something while it is built, and looks at the verbosity."""

    def __init__(self, config):
        super().__init__(config)
        levels.append(transformers_logging.get_verbosity())
        logger = transformers_logging.get_logger("transformers.talking")
        logger.warning("a warning")
        logger.error("an error")


class Listener(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        said.append(record.getMessage())


def test_warnings_of_a_model_that_is_built_are_not_heard_and_the_verbosity_stays():
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_info()
    listener = Listener()
    transformers_logging.get_logger().addHandler(listener)
    try:
        meta_model(Talking, ARCHITECTURES["bert"].make_config(1))
        transformers_logging.get_logger("transformers.talking").warning("afterwards")
    finally:
        transformers_logging.get_logger().removeHandler(listener)
        transformers_logging.set_verbosity(before)

    assert levels == [logging.INFO], "the verbosity is everybody's, also while a model is built"
    assert said == ["an error", "afterwards"]
