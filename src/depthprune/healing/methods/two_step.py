"""The two-step recipe: fine-tune the full model, drop, fine-tune again (Sajjad et al., section 5)."""

from depthprune.healing.base import recipe
from depthprune.specs import Step

recipe(
    "two-step",
    *(Step("finetune"), Step("drop"), Step("finetune")),
    summary="Fine-tune the full model, drop, and fine-tune what is left.",
    paper="https://arxiv.org/abs/2004.03844",
)
