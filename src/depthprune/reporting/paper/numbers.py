"""The paper's own numbers (Sajjad et al., arXiv:2004.03844), to put beside ours. No torch.

All from v1 of April 2020, restated; scores are ×100, on the development sets of GLUE: accuracy, for STS-B a
correlation, MNLI matched. They look like single runs. K counts dropped layers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

TASKS = ("sst2", "mnli", "qnli", "qqp", "stsb", "rte", "mrpc")
WITHIN_TASKS = TASKS[:5]
SOURCE = "arXiv:2004.03844 v1"


@dataclass(frozen=True)
class PaperModel:
    """What the paper says about one of its models.

    Args:
        name, model_type, depth: of the model.
        body: parameters without a head, so the fewest that a model with one can have.
        top: K → the scores with the strategy top, in the order of `TASKS`; K = 0 is the full model.
        means: strategy → K → mean over the seven tasks, read off a chart.
        within: points → for each of `WITHIN_TASKS` the largest K that loses no more, strategy top.
        parameters: K → million parameters.
        tuning: K → how many times faster fine-tuning is.
        inference: K → percent of the inference time that are saved.
    """

    name: str
    model_type: str
    depth: int
    body: int
    top: Mapping[int, tuple[float, ...]]
    means: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    within: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    parameters: Mapping[int, int] = field(default_factory=dict)
    tuning: Mapping[int, float] = field(default_factory=dict)
    inference: Mapping[int, int] = field(default_factory=dict)


# In each entry: `top` is printed in v1's table of the top strategy; `means` are read off v1's chart of the strategies
# (bars, ±0.03); `within`, `parameters`, `tuning` and `inference` are printed in v1's tables of the largest K within so
# many points, and of size and speed (QQP's development set, batch 32). `body` is derived from the architecture.
_BERT = PaperModel(
    "bert-base-cased", "bert", 12, body=108_310_272,
    top={0: (92.43, 84.04, 91.12, 91.07, 88.79, 67.87, 87.99),
         2: (92.20, 83.26, 89.84, 90.92, 88.70, 62.82, 86.27),
         4: (90.60, 82.51, 89.68, 90.63, 88.64, 67.87, 79.41),
         6: (90.25, 81.13, 87.63, 90.35, 88.45, 64.98, 80.15)},
    means={"top": {2: 84.87, 4: 84.19, 6: 83.27},
           "even-alternate": {2: 85.11, 4: 83.87, 6: 81.01},
           "odd-alternate": {2: 85.42, 4: 84.07, 6: 81.28},
           "symmetric": {2: 85.23, 4: 84.15, 6: 81.05},
           "contribution": {2: 84.19, 4: 83.16},
           "bottom": {2: 83.27, 4: 76.35, 6: 70.30}},
    within={1: (2, 3, 1, 7, 6), 2: (5, 4, 4, 8, 7), 3: (7, 6, 5, 9, 8)},
    parameters={0: 110, 2: 94, 4: 80, 6: 66},
    tuning={2: 1.24, 4: 1.48, 6: 1.94},
    inference={2: 17, 4: 33, 6: 50},
)  # fmt: skip
_XLNET = PaperModel(
    "xlnet-base-cased", "xlnet", 12, body=116_718_336,
    top={0: (93.92, 85.97, 90.35, 90.55, 88.01, 65.70, 88.48),
         2: (93.35, 85.67, 89.35, 90.69, 87.59, 66.06, 86.52),
         4: (92.78, 85.46, 89.51, 90.75, 87.74, 67.87, 87.25),
         6: (92.20, 83.48, 88.03, 90.62, 87.45, 65.70, 82.84)},
    means={"top": {2: 85.58, 4: 85.90, 6: 84.31},
           "even-alternate": {2: 85.54, 4: 84.87, 6: 80.33},
           "odd-alternate": {2: 85.86, 4: 84.67, 6: 76.79},
           "symmetric": {2: 82.96, 4: 83.16, 6: 81.12},
           "contribution": {4: 85.62},
           "bottom": {2: 81.01, 4: 76.71, 6: 75.67}},
    within={1: (5, 4, 4, 9, 7), 2: (7, 5, 5, 9, 8), 3: (8, 6, 7, 9, 9)},
    parameters={0: 116, 2: 101, 4: 86, 6: 71},
    tuning={2: 1.20, 4: 1.49, 6: 1.96},
    inference={2: 16, 4: 32, 6: 49},
)  # fmt: skip
_DISTILBERT = PaperModel(
    "distilbert-base-uncased", "distilbert", 6, body=66_362_880,
    top={0: (90.37, 81.78, 88.98, 90.40, 87.14, 60.29, 85.05),
         1: (90.37, 80.41, 88.50, 90.33, 86.21, 59.93, 84.80),
         2: (90.25, 79.41, 86.60, 90.19, 86.91, 62.82, 82.60),
         3: (87.50, 77.07, 85.78, 89.59, 85.19, 58.48, 77.45)},
    means={"top": {1: 82.96, 2: 82.68, 3: 80.17},
           "even-alternate": {1: 82.96, 2: 81.88, 3: 78.14},
           "odd-alternate": {1: 83.65, 2: 81.12, 3: 77.54},
           "symmetric": {2: 80.25},
           "contribution": {1: 82.60, 2: 82.64},
           "bottom": {1: 81.48, 2: 75.27, 3: 68.94}},
    within={1: (2, 0, 1, 3, 2), 2: (2, 1, 1, 3, 3), 3: (3, 2, 2, 4, 3)},
    parameters={0: 66, 1: 59, 2: 52, 3: 45},
    tuning={1: 1.19, 2: 1.48, 3: 1.94},
    inference={1: 17, 2: 33, 3: 50},
)  # fmt: skip
# The charts, the largest K and the speeds leave RoBERTa out. Its body has no pooler here: classifiers have none.
_ROBERTA = PaperModel(
    "roberta-base", "roberta", 12, body=124_055_040,
    top={0: (92.20, 86.44, 91.73, 90.48, 89.87, 68.95, 88.48),
         2: (93.46, 86.53, 91.23, 91.02, 90.21, 71.84, 89.71),
         4: (93.00, 86.20, 90.57, 91.12, 89.77, 70.40, 87.50),
         6: (91.97, 84.44, 90.00, 90.91, 88.92, 64.62, 85.78)},
)  # fmt: skip
MODELS = {model.name: model for model in (_BERT, _XLNET, _DISTILBERT, _ROBERTA)}

# What a head adds: 1,538 parameters (BERT, two classes) to 592,899 (a dense layer first, three classes). Wider bounds
# would take bert-base-uncased (109.48 M) for cased, or distilbert-base-cased (65.78 M with its head) for uncased.
LARGEST_HEAD = 800_000

FINE_TUNED = " fine-tuned on "  # in the name of an analysed model, before the task


def paper_model(name: str, model_type: str | None, full_parameters: int, depth: int) -> str | None:
    """Return which of the paper's models a run's model is; None for any other.

    By the last part of its name, else by its architecture and parameters: the paper, too, names its models by their
    sizes. A model that lost layers before is none of the paper's.

    >>> paper_model("google-bert/bert-base-cased", None, 0, depth=12)
    'bert-base-cased'
    >>> paper_model("my-folder", "bert", 108_311_810, depth=12)
    'bert-base-cased'
    >>> paper_model("bert-base-uncased", "bert", 109_483_778, depth=12) is None
    True
    """
    named = named_in_paper(name)
    if named is not None:
        return named if MODELS[named].depth == depth else None
    for model in MODELS.values():
        fits = model.body <= full_parameters <= model.body + LARGEST_HEAD
        if fits and (model.model_type, model.depth) == (model_type, depth):
            return model.name
    return None


def named_in_paper(name: str) -> str | None:
    """Return the model of the paper that has this name, with an organisation or a folder before it or without.

    Analyses say what a model was fine-tuned on; it is the same model.

    >>> named_in_paper("FacebookAI/roberta-base"), named_in_paper("xlm-roberta-base")
    ('roberta-base', None)
    >>> named_in_paper("bert-base-cased fine-tuned on sst2")
    'bert-base-cased'
    """
    last = name.partition(FINE_TUNED)[0].rstrip("/").rpartition("/")[2].lower()
    return last if last in MODELS else None
