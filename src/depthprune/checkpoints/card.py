"""The model card (README.md) of a cut checkpoint, including what is kept from the card of its source. No torch.

Text from outside (names, the command, the source's front matter) is quoted: as code in Markdown, by the YAML writer in
the front matter. Front matter is read as text only, so that the language `no` stays Norwegian.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from depthprune.checkpoints.history import Cut, present_layers
from depthprune.plan import LayerPlan, format_layers

CARD_FILE = "README.md"
TAGS = ("depthprune", "layer-dropping")
# Entries that also hold for the cut model. Results (model-index) do not, nor do examples in a widget.
CARRIED = (
    "license",
    "license_name",
    "license_link",
    "language",
    "pipeline_tag",
    "datasets",
    "metrics",
)
ABOUT_THE_TASK = ("pipeline_tag", "datasets", "metrics")  # another after training
FRONT_MATTER = re.compile(r"\A\ufeff?\s*---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
RESULTS = ("model-index", "eval_results", "model_name")  # of the source, not of what is made of it
MARK = "<!-- depthprune: the card of the original model follows -->"
NOTE = "What follows was written before the {}. Its figures are not those of this model."
NO_TRAINING = "none. Expect lower scores until it is fine-tuned"
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


def model_card(
    provenance: Mapping[str, Any],
    *,
    name: str,
    config: Mapping[str, Any],
    source_card: str | None,
    parameters: tuple[int, int] | None,
    command: str | None,
    proof: str,
    training: str | None = None,
    task_kept: bool = False,
    library: str = "transformers",
    made_from: str | None = None,
    on_hub: bool = False,
) -> str:
    """Return the README.md of a checkpoint that was cut, or trained without a cut.

    Args:
        provenance: content of its depthprune.json.
        name: of the checkpoint, which is the name of its folder.
        config: its config.json.
        source_card: the README.md of the source, if it has one; its text is appended.
        parameters: number before and after the last cut; None if unknown.
        command: the command line that made it, if there is a single one.
        proof: how it was proved, as a sentence.
        training: the training that followed the cut, as a sentence; None if there was none.
        task_kept: whether the training taught no other task, so that the source's task and tags still hold.
        library: the library that loads it: transformers or sentence-transformers.
        made_from: what the model was made from, if no cut records it: a Hub id, or the name of a folder.
        on_hub: whether `made_from` is a Hub id.

    Raises:
        LoadError: if the recorded cuts contradict each other.
    """
    cuts: Sequence[Cut] = provenance["cuts"]
    front, body = split_card(source_card or "")
    maker = f"depthprune {provenance.get('packages', {}).get('depthprune', '')}".strip()
    notes = [f"Training{' after the cut' if cuts else ''}: {training or NO_TRAINING}", f"Proof: {proof}"]
    if cuts and parameters is not None:
        before, after = parameters
        notes.insert(0, f"Parameters: {before:,} → {after:,} ({100 * (after / before - 1):+.1f} %), in the last cut")
    notes.append(f"{'Every cut, with the hashes of its source' if cuts else 'What made it'}: {code('depthprune.json')}")
    base = made_from if on_hub else base_model(front, cuts)
    about = {"trained": training is not None, "task_kept": task_kept or training is None, "library": library}
    parts = [_front_matter(front, base, cut=bool(cuts), **about)]
    if cuts:
        parts += _about_cuts(cuts, name, maker)
    else:
        done = "saved" if training is None else "trained"
        parts += [f"# {code(name)}", f"This is {code(made_from or 'another model')}, {done} by {maker}."]
    parts += ["\n".join(f"- {note}" for note in notes)]
    parts += [f"## How to load it\n\n{fenced(_loading(name, config, library), 'python')}"]
    if command is not None:
        parts.append(f"## How it was made\n\n{fenced(command, 'sh')}")
    if body.strip():
        note = NOTE.format("cut" if cuts else "training")
        parts.append(f"{MARK}\n## Card of the original model\n\n{note}\n\n{body.strip()}")
    return "\n\n".join(parts) + "\n"


def _about_cuts(cuts: Sequence[Cut], name: str, maker: str) -> list[str]:
    stacks = present_layers(cuts)
    depths = ", ".join(f"{len(kept)} of {depth}" for depth, kept in stacks.values())
    rows = [
        f"| {_cell(stack)} | {depth} → {len(kept)} | {_gone(depth, kept)} | {format_layers(kept)} |"
        for stack, (depth, kept) in stacks.items()
    ]
    several = f" The model was cut {len(cuts)} times; the table is about all cuts together." if len(cuts) > 1 else ""
    strategy = cuts[-1].get("strategy")
    chosen = f" The layers of the last cut were chosen by the strategy {code(strategy)}." if strategy else ""
    return [
        f"# {code(name)}: {depths} layers",
        f"This is {code(cuts[0].get('source', 'another model'))} with fewer layers, made by {maker}.",
        "\n".join(["| stack | depth | layers dropped | layers kept |", "|---|---|---|---|", *rows]),
        f"Layers are counted from 0 in the original model, before any cut.{several}{chosen}",
    ]


def adapter_card(card: str, *, base_model: str) -> str:
    """Return the card of an adapter that was cut with its model: its own card with the new base model.

    Its results are left out. A local folder is not named as base model.
    """
    front, body = split_card(card)
    fields = {key: value for key, value in front.items() if key not in ("base_model", *RESULTS)}
    tags = [tag for tag in _listed(front.get("tags")) if not tag.startswith("base_model:")]
    fields |= {"base_model": base_model} if HUB_ID.fullmatch(base_model) and "/" in base_model else {}
    fields["tags"] = list(dict.fromkeys([*tags, *TAGS]))
    note = f"{MARK}\n## Card of the original adapter\n\n{NOTE.format('cut')}"
    about = f"This adapter was cut together with its model, which is now {code(base_model)}, by depthprune."
    return "\n\n".join([_yaml(fields), about, *([f"{note}\n\n{body.strip()}"] if body.strip() else [])]) + "\n"


def card_for_library(card: str, library: str) -> str:
    """Return a card that also names another library to load the model with; the rest is unchanged."""
    match = FRONT_MATTER.match(card)
    front, _ = split_card(card)
    text = card[match.end() :] if match else card
    note = f"This folder also loads with {code(library)}."
    return "\n\n".join([_yaml({**front, "library_name": library}), note, text.strip()]).strip() + "\n"


def split_card(text: str) -> tuple[dict[str, Any], str]:
    """Split a card into its front matter and its text; for a cut model's card, the text of the original card.

    Front matter that is not a YAML mapping counts as empty: a broken card is no reason to refuse a model.
    """
    match = FRONT_MATTER.match(text)
    front: Any = None
    if match:
        try:
            front = yaml.load(match[1], Loader=yaml.BaseLoader)  # every scalar is text
        except (yaml.YAMLError, RecursionError):
            front = None
    body = text[match.end() :] if match else text
    _, mark, original = body.partition(MARK)
    if mark:  # heading and note are written again
        body = original.split("\n\n", 2)[-1]
    return (front if isinstance(front, dict) else {}), body


def base_model(front: Mapping[str, Any], cuts: Sequence[Cut]) -> str | list[str] | None:
    """Return the `base_model` for the Hub: the last cut's source if it is on the Hub, else the base model of the
    source.

    The name of a local folder is left out: the Hub would take it for the id of some other model.
    """
    for cut in reversed(cuts):
        if str(cut.get("identity", "")).startswith("hub:") and HUB_ID.fullmatch(str(cut["source"])):
            return cut["source"]
    return _text(front.get("base_model"))


def _front_matter(
    front: Mapping[str, Any],
    base: str | list[str] | None,
    *,
    cut: bool,
    trained: bool,
    task_kept: bool,
    library: str,
) -> str:
    fields: dict[str, Any] = {"base_model": base} if base else {}
    if base and trained:  # the Hub has no relation for a cut without training
        fields["base_model_relation"] = "finetune"
    fields["library_name"] = library
    carried = [key for key in CARRIED if task_kept or key not in ABOUT_THE_TASK]
    fields |= {key: value for key in carried if (value := _text(front.get(key)))}
    tags = _listed(front.get("tags")) if task_kept else []
    fields["tags"] = list(dict.fromkeys([*tags, *(TAGS if cut else TAGS[:1])]))
    return _yaml(fields)


def _yaml(fields: Mapping[str, Any]) -> str:
    from huggingface_hub import ModelCardData

    data = ModelCardData()
    for key, value in fields.items():
        data[key] = value  # not through the constructor, which interprets some keys of a source's card
    return f"---\n{data.to_yaml()}\n---"


def _listed(value: Any) -> list[str]:
    found = _text(value) or []
    return [found] if isinstance(found, str) else found


def _text(value: Any) -> str | list[str] | None:
    """Return a text or a list of texts, each on one line; nested values are not copied to another card."""
    if isinstance(value, list):
        return [" ".join(item.split()) for item in value if isinstance(item, str)] or None
    return " ".join(value.split()) or None if isinstance(value, str) else None


def _cell(text: str) -> str:
    return code(text).replace("|", r"\|")


def _gone(depth: int, kept: tuple[int, ...]) -> str:
    return format_layers(LayerPlan.from_kept(depth, kept).dropped) or "none"


def _loading(name: str, config: Mapping[str, Any], library: str) -> str:
    path = json.dumps(name, ensure_ascii=False)  # JSON strings are valid Python literals
    if library == "sentence-transformers":
        return f"from sentence_transformers import SentenceTransformer\n\nmodel = SentenceTransformer({path})"
    named = config.get("architectures")
    known = str(named[0]) if isinstance(named, list) and named and "auto_map" not in config else ""
    chosen = known if known.isidentifier() else "AutoModel"
    trust = ", trust_remote_code=True" if "auto_map" in config else ""
    return f"from transformers import {chosen}\n\nmodel = {chosen}.from_pretrained({path}{trust})"


def code(text: Any) -> str:
    """Quote text as inline code, whatever characters it contains.

    >>> code("a`b")
    '``a`b``'
    """
    line = " ".join(str(text).split())
    ticks = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{space}{line}{space}{ticks}"


def fenced(text: str, language: str) -> str:
    """Quote text as a code block, whatever characters it contains."""
    fence = "`" * max(3, max(map(len, re.findall("`+", text)), default=0) + 1)
    return f"{fence}{language}\n{text.strip()}\n{fence}"
