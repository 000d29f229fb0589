"""The labels of custom data: classes or numbers, by option or by the values of the column."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from depthprune.errors import LoadError, UserError
from depthprune.tasks.base import CLASSIFICATION, COUNTED, KINDS, REGRESSION, TaskOptions, row_name

if TYPE_CHECKING:
    from datasets import Dataset

SHOWN = 6  # classes in a message
MANY = 20  # classes, beyond which whole numbers may be amounts


@dataclass(frozen=True)
class Labelling:
    """How labels are mapped to numbers.

    Args:
        classes: the values in the order of their numbers; none for a regression.
        names: the same as text.
        note: what the user should know.
    """

    classes: Sequence[Any]
    names: tuple[str, ...]
    note: str


def read_labels(
    splits: Mapping[str, "Dataset"], options: TaskOptions, learned_on: Sequence[str], scored_on: str
) -> Labelling:
    """Return how the labels in some splits are mapped to numbers.

    Args:
        splits: rows by the name of their split, none of them without a label.
        learned_on: the splits that tell which classes there are; the scored one's count too where nothing is trained.

    Raises:
        LoadError: if they are neither classes nor numbers, or not of the given kind.
    """
    column, kind = options.label_column, options.kind
    assert column is not None
    if kind is not None and kind not in KINDS:
        raise UserError(f"there is no kind of task '{kind}'; it is one of {', '.join(KINDS)}")
    told = (*learned_on, scored_on) if options.scoring_only else learned_on
    names = getattr(splits[told[0]].features[column], "names", None)
    if names is not None:
        if kind == REGRESSION:
            raise LoadError(f"'{column}' holds the classes {_listed(names)}, and --regression needs numbers")
        return Labelling(
            range(len(names)), tuple(names), f"classification: '{column}' has the classes {_listed(names)}"
        )
    values = [value for split in dict.fromkeys(told) for value in splits[split][column][:]]
    fractions = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values) and any(
        isinstance(v, float) for v in values
    )
    if kind == REGRESSION or (kind is None and fractions):
        return _numbers(splits, column, values, said=kind is not None)
    return _classes(splits, column, values, scored_on, said=kind == CLASSIFICATION, one_will_do=options.scoring_only)


def _numbers(splits: Mapping[str, "Dataset"], column: str, values: list, *, said: bool) -> Labelling:
    for split, rows in splits.items():
        odd = next((i for i, value in enumerate(rows[column][:]) if not _is_number(value)), None)
        if odd is not None:
            raise LoadError(
                f"{row_name(odd, split)} has the label {rows[odd][column]!r} in '{column}', not a finite number; "
                f"remove it, or give --classification ({COUNTED})"
            )
    fraction = any(value != int(value) for value in values)
    what = "numbers" if said else "numbers with a fraction" if fraction else "numbers with a decimal point"
    hint = "" if said or fraction else "; if these are classes, give --classification"
    return Labelling((), (), f"regression: '{column}' holds {what}, {min(values)} to {max(values)}{hint}")


def _classes(
    splits: Mapping[str, "Dataset"], column: str, values: list, scored_on: str, *, said: bool, one_will_do: bool
) -> Labelling:
    odd = next((value for value in values if not isinstance(value, str | int | float)), None)
    if odd is not None:
        raise LoadError(f"the labels in '{column}' are neither numbers nor words ({odd!r}); give one value a row")
    classes = sorted(set(values), key=lambda value: (isinstance(value, str), value))
    if len(classes) < 2 and not one_will_do:
        raise LoadError(f"every row of 'train' has the label {classes[0]!r} in '{column}'; there is nothing to learn")
    known = set(classes)
    new = next((i for i, value in enumerate(splits[scored_on][column][:]) if value not in known), None)
    if new is not None:
        raise LoadError(
            f"the split '{scored_on}' has the label {splits[scored_on][new][column]!r}, which no row of 'train' has "
            f"(row {new}, {COUNTED}); add some or remove it"
        )
    whole = all(_is_number(value) for value in classes)
    hint = "; if these are amounts, give --regression" if whole and not said and len(classes) > MANY else ""
    names = tuple(str(int(v)) if isinstance(v, float) and v == int(v) else str(v) for v in classes)
    number = f"{len(classes)} class{'es' if len(classes) > 1 else ''}"
    return Labelling(classes, names, f"classification: '{column}' has {number} ({_listed(names)}){hint}")


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return value == value and abs(value) != float("inf")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
