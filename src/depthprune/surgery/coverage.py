"""Whether the census speaks for a cut, and what is asked of one that it does not speak for. No torch.

The comparison on the meta device cannot see a forward pass that computes with the depth or the index of a layer. What
is known about that was found by running every architecture (`census.py`), so it holds for those architectures and that
version of transformers. Beyond them a cut is made only after both models were run on made-up input: in memory
`drop_layers` does it by itself, on a copy that shares the weights; a streamed cut needs `--verify logits`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from depthprune.errors import CannotDropError
from depthprune.sources import ModelSource, is_known
from depthprune.surgery.census import covered_types, covered_version

OWN_MODULES = ("transformers.models.", "transformers.integrations.")
_trusted: ContextVar[bool] = ContextVar("trusted", default=False)


@dataclass(frozen=True)
class Beyond:
    """Why the census does not speak for a cut.

    Args:
        reason: a clause that begins with what the model is.
        new_type: the type or its code is unknown, and not only the version of transformers newer.
    """

    reason: str
    new_type: bool

    @property
    def other_way(self) -> str:
        """What helps where no input can be made up; a clause."""
        return "use another architecture" if self.new_type else f"install transformers {short(covered_version())}"


def beyond_census(
    config: Mapping[str, Any], depth_keys: Iterable[str], *, own_code: bool = False, installed: str | None = None
) -> Beyond | None:
    """Return why the census does not speak for a cut, or None where it does.

    Args:
        config: the whole configuration, as config.json or `to_dict` gives it.
        depth_keys: of the stacks that lose layers.
        own_code: whether the model is of a class that is not transformers' own.
        installed: version of transformers; that of the installed one by default.
    """
    if _trusted.get():
        return None
    covered = short(covered_version())
    if own_code:
        return Beyond("the model brings code of its own, which no census has tried", True)
    odd = next((kind for key in depth_keys for kind in _types(config, key)), None)
    if odd is not None:
        return Beyond(f"the census of architectures (transformers {covered}) has not tried '{odd}'", True)
    installed = installed or version("transformers")
    if _numbers(installed) > _numbers(covered):
        return Beyond(f"transformers {installed} is newer than the census of architectures ({covered})", False)
    return None


def source_beyond_census(source: ModelSource, depth_keys: Iterable[str]) -> Beyond | None:
    """Return why the census does not speak for a cut of a checkpoint; see `beyond_census`."""
    own_code = source.trust_remote_code and "auto_map" in source.config
    return beyond_census(source.config, depth_keys, own_code=own_code)


def check_verified(beyond: Beyond | None, verify: str) -> None:
    """Refuse a streamed cut for which nothing speaks but two runs that nobody has asked for.

    Raises:
        CannotDropError: with the reason and what to do.
    """
    if beyond is not None and verify != "logits":
        raise CannotDropError(
            f"{beyond.reason}, so nothing shows yet that its layers can be dropped exactly; add --verify logits, which "
            "runs the model before and after on made-up input" + ("" if beyond.new_type else f", or {beyond.other_way}")
        )


@contextmanager
def taken_as_covered() -> Iterator[None]:
    """Take every type and version as covered: for the census, which is to see what a cut does without this check."""
    token = _trusted.set(True)
    try:
        yield
    finally:
        _trusted.reset(token)


def is_own_code(model_class: type) -> bool:
    """Tell whether a class is not transformers' own."""
    return not model_class.__module__.startswith(OWN_MODULES)


def _types(config: Mapping[str, Any], depth_key: str) -> Iterator[str]:
    """Yield the types on the way to a stack that the census has not tried.

    A nested configuration may have a type of its own that is no model by itself: a part of the one around it.
    """
    covered = covered_types()
    above = str(config.get("model_type") or "")
    if above not in covered:
        yield above
    for part in depth_key.split(".")[:-1]:
        inner = config.get(part)
        if not isinstance(inner, Mapping):
            return
        config, kind = inner, str(inner.get("model_type") or "")
        is_part = _plain(kind).startswith(_plain(above)) or not kind or not is_known(kind)
        if kind not in covered and not is_part:
            yield kind


def _plain(kind: str) -> str:
    return re.sub(r"[^a-z0-9]", "", kind.lower())


def short(of: str) -> str:
    """Return the first two numbers of a version.

    >>> short("5.24.1")
    '5.24'
    """
    return ".".join(map(str, _numbers(of)))


def _numbers(of: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", of)[:2])
