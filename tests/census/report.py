"""Say what came out: a line a type, and a page."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import transformers

Record = dict[str, Any]
SCRATCH = r"/\S*census-\S+"  # folders that are gone
ORDER = ("exact", "refused", "blind", "unproved", "WRONG", "DEAD", "crash")
FAULTS = ("WRONG", "DEAD", "crash")
MEANINGS = {
    "exact": "equal, bit for bit, to the original with those layers bypassed; what was saved and loaded equals it too; "
    "where a head sums all hidden states, whose weights are merged, to within rounding (1e-5)",
    "refused": "`drop_layers` or `save_checkpoint` said no, with a reason",
    "blind": "equal, but the output of the tiny model does not depend on those layers, so the comparison says nothing",
    "unproved": "cut, saved and loaded with every tensor in place; not compared, for the model was not run or the "
    "layers cannot be bypassed",
    "WRONG": "cut without a word, and not equal",
    "DEAD": "cut without a word, and `forward` or `generate` fails where the original's does not",
    "crash": "an error that is no refusal",
}


def tries(record: Record) -> list[Record]:
    """Return what became of every plan of a type."""
    return [plan for stack in record["stacks"].values() for plan in stack["plans"]]


def outcomes(record: Record) -> set[str]:
    """Return the outcomes that a type has."""
    return {plan["outcome"] for plan in tries(record)} | {record["state"]}


def counts(plans: Iterable[Record]) -> dict[str, int]:
    """Return how often each outcome came up, in the order of the page."""
    counted = Counter(plan["outcome"] for plan in plans)
    return {outcome: counted[outcome] for outcome in ORDER if counted[outcome]}


def summary(record: Record) -> str:
    """Return a line about a type."""
    text = f"{record['type']} ({record.get('class', '-')}, {record.get('seconds', 0)} s): {record['state']}"
    for name, stack in record["stacks"].items():
        said = ", ".join(f"{number} {outcome}" for outcome, number in counts(stack["plans"]).items())
        text += f" | {name} [{stack['depth']}] {said}"
    if record.get("ended"):
        text += f" | {record['ended']}"
    reasons = [plan["reason"] for plan in tries(record) if plan["outcome"] in FAULTS]
    return text + (f" | {(reasons or [record['reason']])[0]}" if reasons or record["reason"] else "")


def general(reason: str) -> str:
    """Leave numbers and names out of a reason, so that like ones are counted together."""
    reason = re.sub(SCRATCH, "…", reason.partition("; ")[0])
    return re.sub(r"\d+(\.\d+)?", "N", re.sub(r"'[^']*'", "'…'", reason))[:160]


def page(records: Mapping[str, Record], types: Iterable[str], note: str = "") -> str:
    """Return the Markdown page.

    Args:
        records: the latest record of every type that was tried.
        types: all types there are.
        note: what to say of how this one was made.
    """
    types = sorted(types)
    known = [records[name] for name in types if name in records]
    return "\n".join(
        [
            "# Every architecture of transformers",
            "",
            "Made by `python -m tests.census --jobs 2 --stream --sets 3 --reloads 3` and `python -m tests.census "
            "--report docs/architectures.md`, with "
            f"transformers {transformers.__version__} and torch {torch.__version__.partition('+')[0]} on a CPU. Each "
            "type gets a tiny model with random weights everywhere; plans are cut, compared with the original whose "
            "layers are bypassed, saved, loaded with plain `from_pretrained` and compared again. Every single layer "
            "of every stack is a plan, and up to three larger sets; three plans of a stack are saved and loaded.",
            "",
            *([note, ""] if note else []),
            *_totals(known, types),
            *_reasons(known),
            *_wrong(known),
            *_tried(known),
            *_untried(known, [name for name in types if name not in records]),
        ]
    )


def covered(records: Mapping[str, Record]) -> str:
    """Return `census.json`: the version of transformers, and the types that were cut or refused with a reason."""
    types = sorted(name for name, record in records.items() if tries(record) or record["state"] == "refused")
    return json.dumps({"transformers": transformers.__version__, "types": types}, indent=0) + "\n"


def _totals(known: list[Record], types: list[str]) -> list[str]:
    plans = [plan for record in known for plan in tries(record)]
    lines = ["## Totals", "", f"{len(types)} types, {sum(1 for r in known if tries(r))} of them cut,"]
    lines += [
        f"{len(plans)} plans on {sum(len(r['stacks']) for r in known)} stacks, of which {_reloaded(plans)} were "
        f"saved and loaded again, and {_noted(plans, '(^|; )streamed')} cut as bytes, too, and found to be what was "
        f"saved from memory. {_noted(plans, ' alone')} were compared in a part of the model, such as an image tower, "
        "that was run by itself because the whole did not show the layers.",
        "",
        "| outcome | plans | types with one | meaning |",
        "|---|---|---|---|",
    ]
    for outcome in ORDER:
        having = sum(any(plan["outcome"] == outcome for plan in tries(record)) for record in known)
        number = sum(plan["outcome"] == outcome for plan in plans)
        lines.append(f"| {outcome} | {number} | {having} | {MEANINGS[outcome]} |")
    whole = Counter(record["state"] for record in known)
    lines += [
        "",
        f"Refused as a whole: {whole['refused']} types. Not tried: {len(types) - whole['tried'] - whole['refused']}.",
    ]
    return [*lines, ""]


def _reloaded(plans: list[Record]) -> int:
    return sum(bool(plan["reloaded"]) for plan in plans)


def _noted(plans: list[Record], pattern: str) -> int:
    return sum(bool(re.search(pattern, plan["notes"])) for plan in plans)


def _reasons(known: list[Record]) -> list[str]:
    refused = [
        (general(plan["reason"]), record["type"])
        for record in known
        for plan in tries(record)
        if plan["outcome"] == "refused"
    ]
    refused += [(general(record["reason"]), record["type"]) for record in known if record["state"] == "refused"]
    lines = ["## Why plans are refused", "", "| reason | plans | types |", "|---|---|---|"]
    for reason, number in Counter(reason for reason, _ in refused).most_common():
        having = sorted({name for said, name in refused if said == reason})
        names = ", ".join(having[:6]) + (f" and {len(having) - 6} more" if len(having) > 6 else "")
        lines.append(f"| {_cell(reason)} | {number} | {names} |")
    return [*lines, ""]


def _wrong(known: list[Record]) -> list[str]:
    lines = [
        f"| {record['type']} | {name} | {plan['dropped']} | {plan['outcome']} | {_cell(plan['reason'])} |"
        for record in known
        for name, stack in record["stacks"].items()
        for plan in stack["plans"]
        if plan["outcome"] in FAULTS
    ]
    head = ["| type | stack | dropped | outcome | what |", "|---|---|---|---|---|"]
    return ["## Silently wrong", "", *([*head, *lines] if lines else ["None among those tried."]), ""]


def _tried(known: list[Record]) -> list[str]:
    lines = [
        "## Type by type",
        "",
        "| type | class | stack | depth key | plans | outcome | reason |",
        "|---|---|---|---|---|---|---|",
    ]
    for record in known:
        if record["state"] == "refused":
            row = f"| {record['type']} | {record.get('class', '')} | | | | refused | {_cell(record['reason'])} |"
            lines.append(row)
        for name, stack in record["stacks"].items():
            said = ", ".join(f"{number} {outcome}" for outcome, number in counts(stack["plans"]).items())
            reasons = [plan["reason"] for plan in stack["plans"] if plan["reason"]]
            kind, short = stack.get("class", record["class"]), name.partition(" of ")[0]
            lines.append(
                f"| {record['type']} | {kind} | {short} | `{stack['depth_key']}` {stack['depth']} | "
                f"{len(stack['plans'])} | {said} | {_cell(reasons[0]) if reasons else ''} |"
            )
    return [*lines, ""]


def _untried(known: list[Record], missing: list[str]) -> list[str]:
    lines = ["## Not tried", "", "| type | reason |", "|---|---|"]
    for record in known:
        if record["state"] not in ("tried", "refused"):
            lines.append(f"| {record['type']} | {record['state']}: {_cell(record['reason'])} |")
        for head, reason in record.get("heads", {}).items():
            lines.append(f"| {record['type']} | {head}: {_cell(reason)} |")
    return [*lines, *(f"| {name} | the census has not come to it |" for name in missing), ""]


def _cell(text: str) -> str:
    text = re.sub(SCRATCH, "…", text).replace("|", "\\|").replace("\n", " ")
    return text if len(text) <= 200 else text[:199] + "…"
