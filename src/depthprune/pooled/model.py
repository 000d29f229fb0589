"""A classifier or regressor that reads the pooled states of the last layer: a body and one linear layer.

An architecture's own head may read a token that the model was never trained to fill: BERT's reads the first one through
a pooler, while sentence encoders are trained on the mean of the tokens. The pooling is the entry `pooled_head` of the
configuration, so that the class builds a model from a configuration alone, as surgery needs it to.

Shapes: B sequences, T tokens, D hidden size, C outputs.
"""

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils.generic import can_return_tuple

from depthprune.errors import LoadError
from depthprune.sources import POOLED_HEAD
from depthprune.tasks.pooling import pooled_BD

# Entries with the dropout before a head, by architecture.
DROPOUT = ("classifier_dropout", "seq_classif_dropout", "summary_last_dropout", "hidden_dropout_prob", "resid_pdrop")
READERS = (AutoModelForSequenceClassification, AutoModelForMaskedLM, AutoModelForCausalLM)  # of text


class PooledClassifier(PreTrainedModel):
    """The base of all such classes; `pooled_class` makes one for an architecture."""

    body_class: Any = None

    def __init__(self, config: Any):  # PreTrainedConfig, whose number of labels may be None by its annotation
        super().__init__(config)
        self.num_labels = config.num_labels
        self.pooling: str = getattr(config, POOLED_HEAD)
        self.without_pooler = "add_pooling_layer" in inspect.signature(self.body_class.__init__).parameters
        less = {"add_pooling_layer": False} if self.without_pooler else {}
        setattr(self, self.base_model_prefix, self.body_class(config, **less))
        rates = (getattr(config, name, None) for name in DROPOUT)
        self.dropout = nn.Dropout(next((float(rate) for rate in rates if isinstance(rate, int | float)), 0.0))
        self.classifier = nn.Linear(config.get_text_config().hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(  # without **kwargs, by which Trainer would tell that the model scales its loss for accumulation
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> SequenceClassifierOutput:
        """Return logits [B, C], and the loss where there are labels: cross-entropy, or the squared error of one output.

        Args:
            input_ids: [B, T], as the other inputs; what the body does not take is left out.
            attention_mask: 1 for real tokens, on which side padding may stand; all are real if None.
            labels: [B].
        """
        given = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
            "use_cache": use_cache,
            "output_hidden_states": output_hidden_states,
            "output_attentions": output_attentions,
        }
        given = {name: value for name, value in given.items() if value is not None}
        said = self.base_model(**taken(self.base_model, given), return_dict=True)
        states_BTD = said.last_hidden_state
        mask_BT = states_BTD.new_ones(states_BTD.shape[:2]) if attention_mask is None else attention_mask
        logits_BC = self.classifier(self.dropout(pooled_BD(states_BTD, mask_BT, (self.pooling,))))
        loss = None
        if labels is not None and self.num_labels == 1:
            loss = F.mse_loss(logits_BC.squeeze(-1), labels.to(logits_BC.dtype))
        elif labels is not None:
            loss = F.cross_entropy(logits_BC, labels)
        return SequenceClassifierOutput(
            loss=loss, logits=logits_BC, hidden_states=said.hidden_states, attentions=said.attentions
        )

    @torch.no_grad()
    def set_head(self, weight_CD: Tensor, bias_C: Tensor) -> None:
        """Give the linear layer these values."""
        self.classifier.weight.copy_(weight_CD)
        self.classifier.bias.copy_(bias_C)


def taken(model: nn.Module, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of some inputs that a model takes."""
    known = inspect.signature(model.forward).parameters
    takes_all = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in known.values())
    return {name: value for name, value in given.items() if takes_all or name in known}


def pooled_class(config: PreTrainedConfig) -> type[PooledClassifier]:
    """Return the class of the pooled classifiers of an architecture.

    Raises:
        LoadError: the architecture is an encoder-decoder, or has no plain model that reads token ids.
    """
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise LoadError(
            f"a pooled head reads the states of an encoder or a decoder, and '{kind}' has both; leave --head out, or "
            "give another model"
        )
    found = AutoModel._model_mapping.get(type(config), None)
    body: Any = found[0] if isinstance(found, list | tuple) else found
    if body is None or not any(type(config) in auto._model_mapping for auto in READERS):
        raise LoadError(
            f"a pooled head reads the hidden states of text tokens, and '{kind}' has none; leave --head out, or give "
            "an encoder such as BERT"
        )
    return _class_for(body)


@cache
def _class_for(body: Any) -> Any:
    """Make the class; its module is the body's, where transformers looks up what the code of a model supports."""
    own = {"body_class": body, "__module__": body.__module__}
    own |= {} if body.base_model_prefix else {"base_model_prefix": "model"}
    return type(f"{body.__name__}PooledForSequenceClassification", (PooledClassifier, *body.__bases__), own)
