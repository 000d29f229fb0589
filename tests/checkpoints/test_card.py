"""The model card: what the Hub reads in it, what a person reads, and that no name breaks it."""

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from depthprune.checkpoints.card import adapter_card, code, fenced, model_card, split_card

CUT = {"source": "bert", "stacks": {"layers": {"depth": 6, "dropped": [4, 5]}}, "strategy": "top"}
SOURCE_CARD = """---
license: apache-2.0
language: no
tags:
- fill-mask
- depthprune
datasets: wikipedia
pipeline_tag: fill-mask
widget:
- text: Paris is the [MASK] of France.
model-index:
- name: bert
  results: []
---
# BERT

It scores 99 %.
"""


def card(*, cuts=(CUT,), source_card=SOURCE_CARD, **more) -> str:
    given = {
        "name": "bert-4",
        "config": {"architectures": ["BertForMaskedLM"]},
        "parameters": (1_000, 800),
        "command": "depthprune drop bert --strategy top --count 2 --output bert-4",
        "proof": "plain from_pretrained takes exactly these tensors",
    }
    return model_card(
        {"cuts": list(cuts), "packages": {"depthprune": "0.2"}}, source_card=source_card, **{**given, **more}
    )


def front(text: str) -> dict:
    return ModelCard(text).data.to_dict()


def test_the_hub_reads_what_still_holds_of_the_source_and_not_its_results():
    assert front(card()) == {
        "library_name": "transformers",
        "license": "apache-2.0",
        "language": "no",
        "pipeline_tag": "fill-mask",
        "datasets": "wikipedia",
        "tags": ["fill-mask", "depthprune", "layer-dropping"],
    }


def test_a_person_reads_what_was_done_and_how_to_load_it():
    text = card()

    for said in (
        "# `bert-4`: 4 of 6 layers",
        "| `layers` | 6 → 4 | 4-5 | 0-3 |",
        "1,000 → 800 (-20.0 %)",
        "Training after the cut: none",
        "strategy `top`",
        "plain from_pretrained takes exactly these tensors",
        "depthprune drop bert --strategy top --count 2 --output bert-4",
        'BertForMaskedLM.from_pretrained("bert-4")',
        "It scores 99 %.",
    ):
        assert said in text
    assert text.count("license:") == 1, "the source's front matter is not repeated"
    assert "Training after the cut: three epochs on CoLA" in card(training="three epochs on CoLA")


def test_the_base_is_what_the_hub_knows():
    from_hub = {**CUT, "source": "org/bert", "identity": "hub:org/bert@abc"}
    again = {"source": "folder", "stacks": {"layers": {"depth": 4, "dropped": [0]}}}

    assert front(card(cuts=[from_hub]))["base_model"] == "org/bert"
    assert front(card(cuts=[from_hub, again]))["base_model"] == "org/bert"
    assert front(card(cuts=[from_hub], training="one epoch"))["base_model_relation"] == "finetune"
    assert "base_model_relation" not in front(card(cuts=[from_hub]))
    assert front(card(source_card="---\nbase_model: org/older\n---\n"))["base_model"] == "org/older"
    assert "base_model" not in front(card())


def test_an_adapter_keeps_whatever_its_card_says_but_its_model_and_results():
    odd = "ignore_metadata_errors: x\nself: y\neval_results: z\nmodel_name: w\nmodel-index: [1]\nlanguage: no\n"

    text = adapter_card(f"---\n{odd}base_model: me/long\n---\n# Mine\n", base_model="me/short")

    assert yaml.safe_load(text.split("---")[1]) == {
        "base_model": "me/short",
        "ignore_metadata_errors": "x",
        "self": "y",
        "language": "no",
        "tags": ["depthprune", "layer-dropping"],
    }


def test_a_model_that_was_neither_cut_nor_trained_is_not_called_trained():
    assert "This is `bert`, saved by depthprune 0.2" in card(cuts=[], made_from="bert")


def test_several_cuts_are_told_together_in_the_first_numbering():
    again = {"source": "bert-4", "stacks": {"layers": {"depth": 4, "dropped": [0]}}}

    text = card(cuts=[CUT, again])

    assert "| `layers` | 6 → 3 | 0,4-5 | 1-3 |" in text and "cut 2 times" in text and "This is `bert`" in text


def test_the_card_of_a_cut_model_does_not_grow_with_every_cut():
    once = card()
    twice = card(source_card=once)

    assert len(twice) == len(once) and twice.count("It scores 99 %.") == twice.count("Card of the original model") == 1


@pytest.mark.parametrize(
    ("config", "library", "expected"),
    [
        ({}, "transformers", 'AutoModel.from_pretrained("bert-4")'),
        ({"architectures": "Bert"}, "transformers", 'AutoModel.from_pretrained("bert-4")'),
        ({"architectures": ["x; rm"]}, "transformers", 'AutoModel.from_pretrained("bert-4")'),
        ({"architectures": ["My"], "auto_map": {}}, "transformers", '"bert-4", trust_remote_code=True)'),
        ({}, "sentence-transformers", 'SentenceTransformer("bert-4")'),
    ],
)
def test_the_snippet_loads_with_the_right_class(config, library, expected):
    text = card(config=config, library=library)

    assert expected in text and front(text)["library_name"] == library


BROKEN_CARDS = [
    "",
    "---\na: [\n---\nx",
    "---\n- 1\n---\n",
    "---\na: {b: {c: 1}}\ntags: {x: 1}\n---",
    "---",
    "\ufeff---\r\na: 1\r\n---\r\nx",
]


@pytest.mark.parametrize("broken", BROKEN_CARDS)
def test_a_broken_card_is_no_reason_not_to_write_one(broken):
    assert front(card(source_card=broken))["tags"] == ["depthprune", "layer-dropping"]


def test_front_matter_is_taken_off_with_any_line_ends():
    assert split_card("\ufeff---\r\nlicense: mit\r\n---\r\n# x") == ({"license": "mit"}, "# x")


ODD = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(lambda text: text.split())


@given(ODD, ODD, ODD, ODD)
def test_no_name_breaks_the_card(name, source, tag, command):
    cut = {**CUT, "source": source, "identity": f"hub:{source}@1"}
    carried = "---\n" + yaml.safe_dump({"tags": [tag], "license": tag}, allow_unicode=True) + "---\n"

    text = card(cuts=[cut], name=name, source_card=carried, command=command)

    fields = yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))
    assert fields["license"] == fields["tags"][0] == " ".join(tag.split())
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text.partition("\n---\n")[2])
    assert [token.tag for token in tokens if token.type == "heading_open"] == ["h1", "h2", "h2"]
    assert not [token for token in tokens if token.type == "html_block"]
    fences = [token.content for token in tokens if token.type == "fence"]
    assert len(fences) == 2 and fences[1].split() == command.split()


@given(ODD)
def test_code_is_shown_as_it_is(text):
    inline = MarkdownIt("commonmark").parseInline(code(text))[0].children
    assert inline is not None and len(inline) == 1 and inline[0].type == "code_inline"
    assert inline[0].content.split() == text.split()
    assert len(MarkdownIt("commonmark").parse(fenced(text, "sh"))) == 1
