"""Verdicts on the claims about models, recipes and single layers: each goes either way, or cannot be told."""

import statistics
from dataclasses import replace

import pytest

from depthprune.reporting.analyses import PAPER_COSINE, PAPER_PROBE, Analysis
from depthprune.reporting.claims import INCONCLUSIVE, NOT_SUPPORTED, NOT_TESTABLE, SUPPORTED, verdicts
from depthprune.reporting.pairs import family
from depthprune.reporting.paper.numbers import MODELS, TASKS
from depthprune.reporting.results import Results, read_results
from depthprune.specs import HealSpec
from made_records import make_record, make_seeds

MANY = 40_000  # examples, so that a point is no noise
BERT = {"name": "bert-base-cased", "model": "hub:google-bert/bert-base-cased@b", "model_type": "bert", "depth": 12}
XLNET = {"name": "xlnet-base-cased", "model": "hub:xlnet/xlnet-base-cased@x", "model_type": "xlnet", "depth": 12}
ROBERTA = {"name": "roberta-base", "model": "hub:FacebookAI/roberta-base@r", "model_type": "roberta", "depth": 12}
DISTIL = {"name": "distilbert-base-uncased", "model": "hub:d@d", "model_type": "distilbert", "depth": 6}


def top(count, depth=12):
    return tuple(range(depth - count, depth))


def verdict(results, number):
    results = results if isinstance(results, Results) else read_results(results)
    return next(v for v in verdicts(results) if v.number == number)


def symmetric_and_contribution(root, model, symmetric, contribution, *, examples=MANY, also="top"):
    plans = {(8, 9, 10, 11): 0.84, (4, 5, 6, 7): symmetric, (2, 4, 7, 8): contribution}
    if also != "top":
        plans[(4, 6, 8, 10)] = plans.pop((8, 9, 10, 11))
    for dropped, score in plans.items():
        names = ("contribution (threshold 0.9)",) if dropped == (2, 4, 7, 8) else ()
        make_seeds(root, dropped, score, strategies=names, examples=examples, **model)


@pytest.mark.parametrize("also", ["top", "odd-alternate"])
@pytest.mark.parametrize(
    "bert, xlnet, examples, expected",
    [
        ((0.845, 0.80), (0.78, 0.838), MANY, SUPPORTED),
        ((0.78, 0.84), (0.84, 0.78), MANY, NOT_SUPPORTED),
        ((0.845, 0.80), (0.78, 0.838), 400, INCONCLUSIVE),
    ],
    ids=["as in the paper", "the other way round", "within the noise"],
)
def test_symmetric_suits_bert_and_hurts_xlnet_or_not(bert, xlnet, examples, expected, also, tmp_path):
    symmetric_and_contribution(tmp_path, BERT, *bert, examples=examples, also=also)
    alone = verdict(tmp_path, 5)
    assert alone.verdict == NOT_TESTABLE and "needs" in alone.evidence and "symmetric" in alone.evidence
    symmetric_and_contribution(tmp_path, XLNET, *xlnet, examples=examples, also=also)
    found = verdict(tmp_path, 5)
    assert found.verdict == expected
    assert "xlnet-base-cased, K = 4 of 12" in found.evidence and also in found.evidence


E5 = {"name": "e5-small-12", "model": "sha256:e5", "model_type": "bert", "depth": 12}
MPNET = {"name": "all-mpnet-base-v2", "model": "sha256:mpnet", "model_type": "mpnet", "depth": 12}


@pytest.mark.parametrize(
    "bert, mpnet, expected",
    [((0.845, 0.80), (0.78, 0.838), SUPPORTED), ((0.78, 0.84), (0.84, 0.78), NOT_SUPPORTED)],
)
def test_models_of_the_same_objectives_stand_in_where_the_papers_were_not_run_and_are_named(
    bert, mpnet, expected, tmp_path
):
    symmetric_and_contribution(tmp_path, E5, *bert)
    alone = verdict(tmp_path, 5)
    assert alone.verdict == NOT_TESTABLE and "e5-small-12, K = 4" in alone.evidence
    command = "depthprune run xlnet/xlnet-base-cased --task mrpc --strategy contribution --count 4 --epochs 3"
    assert f"To supply it: {command.replace('contribution', 'symmetric')}" in alone.evidence
    assert command in alone.evidence and "bert-base" not in alone.evidence, "what is there is not asked for"
    symmetric_and_contribution(tmp_path, MPNET, *mpnet)
    found = verdict(tmp_path, 5)
    assert found.verdict == expected
    assert found.evidence.startswith("e5-small-12 (bert) and all-mpnet-base-v2 (mpnet) stand for BERT and XLNet.")
    symmetric_and_contribution(tmp_path, BERT, 0.845, 0.80)
    assert verdict(tmp_path, 5).evidence.startswith("bert-base-cased (bert) and all-mpnet-base-v2 (mpnet) stand for")
    symmetric_and_contribution(tmp_path, XLNET, 0.78, 0.838)
    assert "stand for" not in verdict(tmp_path, 5).evidence


def test_no_distilled_model_and_no_decoder_stands_for_the_papers():
    from depthprune.reporting.claims.roles import BERT, OTHER, playing

    models = [("MiniLM-L6", "bert"), ("distilroberta-base", "roberta"), ("llama", "llama"), ("unknown", None)]
    assert playing(BERT, models) == playing(OTHER, models) == []
    assert playing(BERT, [*models, ("roberta-base", "roberta")]) == ["roberta-base"]
    assert playing(OTHER, [*models, ("electra-small", "electra")]) == ["electra-small"]
    assert playing(OTHER, [("xlnet-base-cased", None), ("my-xlnet", "xlnet")]) == ["xlnet-base-cased"]


def test_other_models_than_the_papers_do_not_speak_for_it_where_the_papers_are(tmp_path):
    symmetric_and_contribution(tmp_path, BERT, 0.845, 0.80)
    symmetric_and_contribution(tmp_path, XLNET, 0.78, 0.838)
    other = {"name": "bert-other", "model": "sha256:other", "model_type": "bert", "depth": 12}
    symmetric_and_contribution(tmp_path, other, 0.5, 0.84)
    assert verdict(tmp_path, 5).verdict == SUPPORTED


@pytest.mark.parametrize(
    "name, model_type, expected",
    [
        ("google-bert/bert-base-cased", None, "bert"),
        ("my-folder", "bert", "bert"),
        ("distilbert-base-uncased", None, "distilled"),
        ("distilroberta-base", "roberta", "distilled"),
        ("TinyBERT_General_4L_312D", "bert", "distilled"),
        ("roberta-base", None, "roberta"),
        ("xlm-roberta-base", None, None),
        ("camembert-base", None, None),
        ("xlnet-base-cased", None, "xlnet"),
        ("bert-base-japanese", "electra", None),
    ],
)
def test_a_models_family_is_told_by_its_architecture_or_its_name(name, model_type, expected):
    assert family(name, model_type) == expected


@pytest.mark.parametrize(
    "kept, examples, expected",
    [(0.849, MANY, SUPPORTED), (0.70, MANY, NOT_SUPPORTED), (0.83, 400, INCONCLUSIVE)],
)
def test_a_distilled_model_can_lose_a_third_or_it_cannot(kept, examples, expected, tmp_path):
    make_seeds(tmp_path, (), 0.85, examples=examples, **DISTIL)
    make_seeds(tmp_path, (2, 4), 0.80, examples=examples, **DISTIL)
    assert "needs" in verdict(tmp_path, 9).evidence
    make_seeds(tmp_path, (4, 5), kept, examples=examples, **DISTIL)
    found = verdict(tmp_path, 9)
    assert found.verdict == expected
    assert f"the best by position is {'top' if kept > 0.8 else 'odd-alternate'}" in found.evidence


def halves(root, model, score, *, examples=MANY, task="mrpc"):
    make_seeds(root, (), 0.85, examples=examples, task=task, **model)
    make_seeds(root, top(6), score, examples=examples, task=task, **model)


@pytest.mark.parametrize(
    "roberta, bert, examples, expected",
    [
        (0.84, 0.80, MANY, SUPPORTED),
        (0.80, 0.84, MANY, NOT_SUPPORTED),
        (0.84, 0.80, 400, INCONCLUSIVE),
    ],
)
def test_roberta_loses_less_than_bert_or_more(roberta, bert, examples, expected, tmp_path):
    halves(tmp_path, ROBERTA, roberta, examples=examples)
    halves(tmp_path, BERT, 0.7, examples=examples, task="qnli")
    alone = verdict(tmp_path, 11)
    assert alone.verdict == NOT_TESTABLE and "needs" in alone.evidence and "roberta-base loses" in alone.evidence
    halves(tmp_path, BERT, bert, examples=examples)
    found = verdict(tmp_path, 11)
    assert found.verdict == expected
    assert "mrpc: roberta-base loses" in found.evidence and "qnli" not in found.evidence


TWICE = HealSpec(epochs_before=3)
GRADUAL = HealSpec(drop_every=2)
LONGER = HealSpec(num_epochs=6)
PLAIN = {  # with as many steps, but for more epochs, which is about fewer
    "dropping after fine-tuning": HealSpec(num_epochs=6),
    "gradual dropping": HealSpec(num_epochs=7),
    "more epochs": HealSpec(),
}
PARTS = {"dropping after fine-tuning": TWICE, "gradual dropping": GRADUAL, "more epochs": LONGER}


@pytest.mark.parametrize("words", PARTS)
@pytest.mark.parametrize("score, expected", [(0.802, SUPPORTED), (0.85, NOT_SUPPORTED), (0.75, SUPPORTED)])
def test_another_recipe_gains_nothing_or_something(score, expected, words, tmp_path):
    make_seeds(tmp_path, (), 0.85, examples=MANY)
    make_seeds(tmp_path, (4, 5), 0.80, examples=MANY, heal=PLAIN[words])
    assert verdict(tmp_path, 8).verdict == NOT_TESTABLE
    make_seeds(tmp_path, (4, 5), score, heal=PARTS[words], examples=MANY)
    found = verdict(tmp_path, 8)
    others = [name for name in PARTS if name != words]
    assert found.verdict == expected
    assert words in found.evidence and found.evidence.endswith(f"not tested: {', '.join(others)}")


def test_a_recipe_is_compared_only_with_the_same_in_all_else(tmp_path):
    make_seeds(tmp_path, (4, 5), 0.80, examples=MANY)
    make_seeds(tmp_path, (4, 5), 0.90, heal=replace(TWICE, learning_rate=1e-5), examples=MANY)
    make_record(tmp_path, (4, 5), 0.90, heal=TWICE, seed=7, examples=MANY)
    make_seeds(tmp_path, (3, 4), 0.90, heal=GRADUAL, examples=MANY)
    make_seeds(tmp_path, (4, 5), 0.60, heal=HealSpec(num_epochs=1), examples=MANY)
    make_seeds(tmp_path, (4, 5), 0.60, heal=HealSpec(num_epochs=1, epochs_before=1), examples=MANY)  # of other steps
    found = verdict(tmp_path, 8)
    assert found.verdict == NOT_TESTABLE and "needs" in found.evidence


def test_other_recipes_say_nothing_about_the_papers_other_claims(tmp_path):
    make_seeds(tmp_path, (), 0.85, examples=MANY)
    for dropped, score in ((4, 5), 0.84), ((0, 1), 0.60):
        make_seeds(tmp_path, dropped, score, examples=MANY)
        make_seeds(tmp_path, dropped, 1.4 - score, heal=GRADUAL, examples=MANY)
    assert verdict(tmp_path, 4).verdict == SUPPORTED and verdict(tmp_path, 10).verdict == SUPPORTED


def probe(model, values, **more):
    given = {"kind": "probe", "before_name": None, "task": "sst2", "metric": "accuracy",
             "token": "last" if model is XLNET else "first", "examples": 0, **more}  # fmt: skip
    return Analysis(model_name=model["name"], model_type=model["model_type"], depth=12, values=tuple(values), **given)


def test_the_papers_own_probes_support_its_claim_and_exchanged_they_do_not():
    values = PAPER_PROBE["bert-base-cased"], PAPER_PROBE["xlnet-base-cased"]
    bert, xlnet = probe(BERT, values[0]), probe(XLNET, values[1])
    found = verdict(Results((), analyses=(bert, xlnet)), 7)
    assert found.verdict == SUPPORTED and "from layer 8 of 12" in found.evidence and "from layer 11" in found.evidence
    exchanged = probe(BERT, values[1]), probe(XLNET, values[0])
    assert verdict(Results((), analyses=exchanged), 7).verdict == NOT_SUPPORTED


def test_a_probe_on_few_examples_or_of_one_model_tells_nothing():
    few = [probe(model, PAPER_PROBE[model["name"]], examples=400) for model in (BERT, XLNET)]
    assert "from layer 8 of 12 (95 %: " in verdict(Results((), analyses=tuple(few)), 7).evidence
    assert verdict(Results((), analyses=tuple(few)), 7).verdict == INCONCLUSIVE
    many = [replace(each, examples=MANY) for each in few]
    assert verdict(Results((), analyses=tuple(many)), 7).verdict == SUPPORTED
    for some in (many[:1], [many[0], replace(many[1], task="qnli")]):
        found = verdict(Results((), analyses=tuple(some)), 7)
        assert found.verdict == NOT_TESTABLE and found.evidence.startswith("needs")
        assert "bert-base-cased is within a point of its best from layer 11 of 12" in found.evidence


def covariance(error, *, alike):
    """Of values with a standard error, whose differences are known better the more alike rows are answered."""
    return tuple(tuple(error**2 * (1.0 if i == j else alike) for j in range(13)) for i in range(13))


def test_a_probe_whose_layers_answer_the_same_rows_tells_more_than_its_number_of_rows():
    few = [probe(model, PAPER_PROBE[model["name"]], examples=400) for model in (BERT, XLNET)]
    for alike, expected in (0.99, SUPPORTED), (0.0, INCONCLUSIVE):
        known = tuple(replace(each, covariance=covariance(0.016, alike=alike)) for each in few)
        found = verdict(Results((), analyses=known), 7)
        assert found.verdict == expected, found.evidence
    assert "from layer 11 of 12 (95 %: " in found.evidence
    exchanged = [
        replace(each, values=PAPER_PROBE[other["name"]], covariance=covariance(0.016, alike=0.99))
        for each, other in zip(few, (XLNET, BERT), strict=True)
    ]
    assert verdict(Results((), analyses=tuple(exchanged)), 7).verdict == NOT_SUPPORTED


def test_analyses_of_stand_ins_are_of_the_token_that_stands_for_their_sentence():
    values = {"bert": PAPER_PROBE["bert-base-cased"], "mpnet": PAPER_PROBE["xlnet-base-cased"]}
    tuned = {kind: f"{model['name']} fine-tuned on sst2" for kind, model in (("bert", E5), ("mpnet", MPNET))}
    some = [probe({"name": tuned[kind], "model_type": kind}, values[kind]) for kind in values]
    noise = [replace(each, token=token, values=(0.8,) * 13) for each in some for token in ("mean", "last")]
    found = verdict(Results((), analyses=(*noise, *some)), 7)
    assert found.verdict == SUPPORTED and found.evidence.count("is within a point") == 2
    assert found.evidence.startswith("e5-small-12 (bert) and all-mpnet-base-v2 (mpnet) stand for BERT and XLNet.")


def test_a_probe_of_a_pruned_or_a_raw_model_gives_way_to_one_of_the_whole_fine_tuned_model():
    tuned = {**BERT, "name": "bert-base-cased fine-tuned on sst2"}
    cut = {**BERT, "name": "bert-base-cased without layers 10-11 fine-tuned on sst2"}
    flat = [0.8] * 13
    xlnet = probe(XLNET, PAPER_PROBE["xlnet-base-cased"])
    good = probe(tuned, PAPER_PROBE["bert-base-cased"])
    assert verdict(Results((), analyses=(probe(BERT, flat), probe(cut, flat), good, xlnet)), 7).verdict == SUPPORTED
    assert verdict(Results((), analyses=(probe(BERT, flat), xlnet)), 7).verdict == NOT_SUPPORTED
    assert verdict(Results((), analyses=(probe(cut, flat), xlnet)), 7).verdict == NOT_TESTABLE


def similarity(model, values, **more):
    given = {"kind": "similarity", "before_name": model["name"], "metric": "cosine", **more}
    return replace(probe(model, values), **given, model_name="model fine-tuned on sst2")


LOW_FIRST = [1.0, 0.8, 0.2, *[0.8] * 2, *[0.5] * 4, *[0.8] * 3, 0.4]  # a dip in the middle, and one before it
RISING = [1.0, *(0.3 + 0.05 * i for i in range(12))]


@pytest.mark.parametrize(
    "bert, xlnet, expected",
    [
        (PAPER_COSINE["bert-base-cased"], PAPER_COSINE["xlnet-base-cased"], SUPPORTED),
        (PAPER_COSINE["bert-base-cased"], PAPER_COSINE["bert-base-cased"], NOT_SUPPORTED),
        (RISING, PAPER_COSINE["xlnet-base-cased"], NOT_SUPPORTED),
        (PAPER_COSINE["bert-base-cased"], LOW_FIRST, NOT_SUPPORTED),
        ([1.0] + [0.8] * 12, PAPER_COSINE["xlnet-base-cased"], INCONCLUSIVE),
        (PAPER_COSINE["bert-base-cased"], [1.0] + [0.8] * 12, INCONCLUSIVE),
    ],
    ids=["as in the paper", "xlnet like bert", "bert's low layers", "xlnet's low layers", "bert alike", "xlnet alike"],
)
def test_where_fine_tuning_changes_a_model(bert, xlnet, expected):
    both = similarity(BERT, bert), similarity(XLNET, xlnet)
    assert verdict(Results((), analyses=both), 12).verdict == expected
    alone = verdict(Results((), analyses=both[:1]), 12)
    assert alone.verdict == NOT_TESTABLE and alone.evidence.startswith("needs")
    assert f"{statistics.fmean(bert[1:5]):.2f} in the first third" in alone.evidence


@pytest.mark.parametrize("error, expected", [(0.002, SUPPORTED), (0.2, INCONCLUSIVE)])
def test_where_fine_tuning_changes_a_model_is_decided_by_the_spread_over_rows(error, expected):
    both = [similarity(model, PAPER_COSINE[model["name"]]) for model in (BERT, XLNET)]
    known = [replace(each, covariance=covariance(error, alike=0.0)) for each in both]
    found = verdict(Results((), analyses=tuple(known)), 12)
    assert found.verdict == expected
    assert "a difference of +0.490 (95 % over the rows: +" in found.evidence or error > 0.1, found.evidence
    other = replace(known[1], task="qnli")
    assert verdict(Results((), analyses=(known[0], other)), 12).verdict == expected, "no task is common"
    alike = replace(known[0], values=(1.0, *[0.8] * 12), task="qnli")
    pairs = verdict(Results((), analyses=(*known, alike)), 12)
    assert pairs.verdict == expected and pairs.evidence.count("first third") == 1, "pairs of one task alone"


def test_a_missing_analysis_comes_with_the_commands_that_make_it(tmp_path):
    make_seeds(tmp_path, (), 0.85, options={"dataset": "glue"}, **E5)
    results = read_results(tmp_path)
    found = verdict(replace(results, analyses=(similarity(E5, PAPER_COSINE["bert-base-cased"]),)), 12)
    assert found.verdict == NOT_TESTABLE
    run = "--task mrpc --dataset glue --epochs 3 --learning-rate 2e-05 --seed 0"
    rest = "--task mrpc --dataset glue --token first,mean --store STORE"
    assert found.evidence.endswith(
        f"To supply it: depthprune run xlnet/xlnet-base-cased {run}; "
        f"depthprune similarity xlnet/xlnet-base-cased CHECKPOINT {rest}"
    )
    probes = verdict(replace(results, analyses=(probe(XLNET, PAPER_PROBE["xlnet-base-cased"]),)), 7)
    assert probes.evidence.endswith(
        f"To supply it: depthprune run e5-small-12 {run}; depthprune probe CHECKPOINT {rest}"
    ), "the model that the store has"


@pytest.mark.parametrize(
    "mnli, examples, expected",
    [(0.80, MANY, SUPPORTED), (0.845, MANY, NOT_SUPPORTED), (0.80, 400, INCONCLUSIVE)],
)
def test_robust_tasks_lose_less_by_more_than_the_noise(mnli, examples, expected, tmp_path):
    for task, score in ("qqp", 0.83), ("mnli", mnli):
        make_seeds(tmp_path, (), 0.85, task=task, examples=examples)
        make_seeds(tmp_path, (4, 5), score, task=task, examples=examples)
    make_seeds(tmp_path, (3, 4, 5), 0.5, task="qqp", examples=examples)  # a K that only one of them has
    found = verdict(tmp_path, 6)
    assert found.verdict == expected and "qqp loses 2.00" in found.evidence


@pytest.mark.parametrize(
    "loss, examples, expected", [(0.01, MANY, SUPPORTED), (0.05, MANY, NOT_SUPPORTED), (0.05, 400, INCONCLUSIVE)]
)
def test_a_third_of_the_layers_is_safe_or_it_is_not(loss, examples, expected, tmp_path):
    make_seeds(tmp_path, (), 0.85, examples=examples)
    make_seeds(tmp_path, (4, 5), 0.85 - loss, examples=examples)
    assert verdict(tmp_path, 10).verdict == expected


@pytest.mark.parametrize(
    "kept, examples, expected",
    [(0.99, MANY, SUPPORTED), (0.90, MANY, NOT_SUPPORTED), (0.97, MANY, INCONCLUSIVE), (0.99, 400, INCONCLUSIVE)],
)
def test_half_of_the_layers_can_go_or_they_cannot(kept, examples, expected, tmp_path):
    make_seeds(tmp_path, (), 0.85, examples=examples)
    make_seeds(tmp_path, (3, 4, 5), 0.85 * kept, examples=examples)
    found = verdict(tmp_path, 1)
    assert found.verdict == expected and f"{100 * kept:.1f} % kept (95 %: " in found.evidence


def test_the_papers_own_numbers_say_what_the_paper_says(tmp_path):
    for given in BERT, XLNET, ROBERTA, DISTIL:
        paper = MODELS[given["name"]]
        for count, scores in paper.top.items():
            for task, score in zip(TASKS, scores, strict=True):
                dropped = top(count, paper.depth)
                make_record(tmp_path, dropped, score / 100, task=task, examples=MANY * 100, **given)
    results = read_results(tmp_path)
    assert verdict(results, 9).verdict == INCONCLUSIVE and "99.1 % kept" in verdict(results, 9).evidence
    assert "spread over 7 tasks, 1 seed each" in verdict(results, 11).evidence
    assert verdict(results, 11).verdict == INCONCLUSIVE, "single runs on seven tasks, three of which say otherwise"
    assert "roberta-base loses 1.64, bert-base-cased loses 2.9" in verdict(results, 11).evidence
