"""Whether the census covers a cut, and what is required of a cut that it does not cover. No torch.

The comparison on the meta device does not notice a forward pass that uses the depth or the index of a layer. These were
found by running every architecture (`census.py`), so the knowledge is limited to those architectures and that version
of transformers. Beyond them both models have to be run on random input and compared: in memory `drop_layers` does so on
a copy that shares the weights; a streamed cut needs `--verify logits`.
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
    """Why the census does not cover a cut.

    Args:
        reason: a clause that begins with the model.
        new_type: whether the model type or its code is unknown; else only the version of transformers is newer.
    """

    reason: str
    new_type: bool

    @property
    def other_way(self) -> str:
        """What to do if no input can be generated, as a clause."""
        return "use another architecture" if self.new_type else f"install transformers {short(covered_version())}"


def beyond_census(
    config: Mapping[str, Any], depth_keys: Iterable[str], *, own_code: bool = False, installed: str | None = None
) -> Beyond | None:
    """Return why the census does not cover a cut, or None if it does.

    Args:
        config: the whole configuration, as config.json or `to_dict` gives it.
        depth_keys: of the stacks that lose layers.
        own_code: whether the model's class is not one of transformers.
        installed: version of transformers; the installed one by default.
    """
    if _trusted.get():
        return None
    covered = short(covered_version())
    if own_code:
        return Beyond("the model brings its own code, which the census cannot cover", True)
    odd = next((kind for key in depth_keys for kind in _types(config, key)), None)
    if odd is not None:
        return Beyond(f"the census of architectures (transformers {covered}) does not cover '{odd}'", True)
    installed = installed or version("transformers")
    if _numbers(installed) > _numbers(covered):
        return Beyond(f"transformers {installed} is newer than the census of architectures ({covered})", False)
    return None


def source_beyond_census(source: ModelSource, depth_keys: Iterable[str]) -> Beyond | None:
    """Return why the census does not cover a cut of a checkpoint; see `beyond_census`."""
    own_code = source.trust_remote_code and "auto_map" in source.config
    return beyond_census(source.config, depth_keys, own_code=own_code)


def check_verified(beyond: Beyond | None, verify: str) -> None:
    """Refuse a streamed cut that the census does not cover, unless `--verify logits` is given.

    Raises:
        CannotDropError: if the cut is refused; the message says why and what to do.
    """
    if beyond is not None and verify != "logits":
        raise CannotDropError(
            f"{beyond.reason}, so it is not certain that its layers can be dropped; add --verify logits, which "
            "runs the model before and after on random input" + ("" if beyond.new_type else f", or {beyond.other_way}")
        )


@contextmanager
def taken_as_covered() -> Iterator[None]:
    """Treat every type and version as covered: for the census itself, which runs without this check."""
    token = _trusted.set(True)
    try:
        yield
    finally:
        _trusted.reset(token)


def is_own_code(model_class: type) -> bool:
    """Return whether a class is not one of transformers."""
    return not model_class.__module__.startswith(OWN_MODULES)


def _types(config: Mapping[str, Any], depth_key: str) -> Iterator[str]:
    """Yield the model types from the outer configuration to that of a stack that the census does not cover.

    A nested configuration may have a type that is not a model by itself, but a part of the outer one.
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
