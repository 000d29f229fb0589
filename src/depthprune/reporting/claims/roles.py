"""Which models of a store a claim about "a BERT" and "a model of another objective" is tested on. No torch.

The paper compares BERT, pre-trained by masked language modelling, with XLNet, pre-trained by permuted language
modelling, and puts what it finds down to the objective. Where the paper's own models are not in the store, others of
the same objective stand in, the nearest first, and the evidence says which.
"""

from collections.abc import Sequence

from depthprune.reporting.pairs import family
from depthprune.reporting.paper.numbers import named_in_paper

# Architecture → what it is pre-trained on. Not here are decoders, whose attention differs as much as their objective;
# deberta-v2, which stands for models of two objectives; and ALBERT, whose layers share one set of weights.
MASKED = "masked language modelling"
OBJECTIVES = {
    "bert": MASKED,
    "camembert": MASKED,
    "modernbert": MASKED,
    "roberta": MASKED,
    "xlm-roberta": MASKED,
    "xlnet": "permuted language modelling",  # arXiv:1906.08237
    "mpnet": "masked and permuted language modelling",  # arXiv:2004.09297
    "electra": "replaced token detection",  # arXiv:2003.10555
}
BERT, OTHER = "BERT", "XLNet"  # the roles, by the paper's case of each

Named = tuple[str, str | None]  # a model's name and architecture


def playing(role: str, models: Sequence[Named]) -> list[str]:
    """Return the names of the models that a role is tested on: those of the first kind that there is one of.

    For a BERT: the paper's; any BERT; any other model of the same objective. For a model of another objective: the
    paper's XLNet; any XLNet; one whose objective permutes tokens too; one of any other objective. Distilled models,
    which learned from another model, are none of these.

    >>> playing(BERT, [("my-bert", "bert"), ("roberta-base", "roberta")])
    ['my-bert']
    >>> playing(OTHER, [("all-mpnet-base-v2", "mpnet"), ("electra-small", "electra"), ("bert-base-cased", "bert")])
    ['all-mpnet-base-v2']
    """
    kinds: dict[int, set[str]] = {}
    for name, model_type in models:
        place = _place(role, name, model_type)
        if place is not None:
            kinds.setdefault(place, set()).add(name)
    return sorted(kinds[min(kinds)]) if kinds else []


def _place(role: str, name: str, model_type: str | None) -> int | None:
    own = family(name, model_type)
    objective = None if own == "distilled" else OBJECTIVES.get(model_type or own or "")
    if objective is None or (objective == MASKED) != (role == BERT):
        return None
    if own == role.lower():
        return 0 if named_in_paper(name) else 1
    return 2 if role == BERT or "permuted" in objective else 3


def stood_in(bert: Sequence[Named], other: Sequence[Named]) -> str:
    """Say which models stand for BERT and XLNet; nothing where these are the paper's own.

    >>> stood_in([("e5-small-12", "bert")], [("all-mpnet-base-v2", "mpnet")])
    'e5-small-12 (bert) and all-mpnet-base-v2 (mpnet) stand for BERT and XLNet'
    """
    both = [sorted(dict.fromkeys(some), key=repr) for some in (bert, other)]
    if not all(both) or all(named_in_paper(name) for some in both for name, _ in some):
        return ""
    words = [", ".join(f"{name} ({model_type})" if model_type else name for name, model_type in some) for some in both]
    return f"{' and '.join(words)} stand for {BERT} and {OTHER}"
