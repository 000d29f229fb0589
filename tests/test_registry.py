"""Parts are found in the folder of their package and in other distributions; names are guessed at."""

import itertools
import sys
from pathlib import Path

import pytest

from depthprune.errors import UserError
from depthprune.registry import Registry, first_line

numbers = itertools.count()


@pytest.fixture
def package(tmp_path, monkeypatch) -> str:
    """An importable package with two parts, each in a file of its own, and a registry in its `base`."""
    name = f"parts_{next(numbers)}"
    files = {
        "__init__": "",
        "base": f"from depthprune.registry import Registry\nregistry = Registry('shape', '{name}')\n",
        "circles": f"from {name}.base import registry\nregistry.add('circle', 'round')\n",
        "squares": f"from {name}.base import registry\nregistry.add('square', 'four corners')\n",
    }
    write_package(tmp_path / name, files)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def write_package(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir()
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)


def registry_of(package: str) -> Registry:
    return __import__(f"{package}.base").base.registry


def test_a_part_is_found_by_being_a_file_in_the_folder(package):
    registry = registry_of(package)
    assert f"{package}.circles" not in sys.modules, "nothing is imported before a name is asked for"
    assert registry.get("circle") == "round"
    assert registry.names() == ["circle", "square"]
    assert list(registry.items()) == [("circle", "round"), ("square", "four corners")]


def test_a_part_that_cannot_be_imported_is_no_less_missing_the_second_time(package, tmp_path):
    (tmp_path / package / "broken.py").write_text("import nothing_of_that_name")
    registry = registry_of(package)
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name"):
            registry.names()


def test_another_distribution_adds_parts_by_an_entry_point(package, tmp_path):
    (tmp_path / "more_shapes.py").write_text(f"from {package}.base import registry\nregistry.add('oval', 'flat')\n")
    metadata = tmp_path / "more_shapes-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: more-shapes\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[depthprune.shape]\nmore = more_shapes\n")
    assert registry_of(package).names() == ["circle", "oval", "square"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sqare", "no shape is named 'sqare'; did you mean 'square'? (known: circle, square)"),
        ("zzz", "no shape is named 'zzz' (known: circle, square)"),
        ("Circle", "no shape is named 'Circle'; did you mean 'circle'? (known: circle, square)"),
    ],
)
def test_an_unknown_name_gets_the_nearest_one_if_any_is_near(package, name, message):
    with pytest.raises(UserError) as caught:
        registry_of(package).get(name)
    assert str(caught.value) == message


def test_two_parts_of_one_name_are_a_programming_error(package):
    registry = registry_of(package)
    registry.add("oval", "flat")
    with pytest.raises(AssertionError, match="'oval'"):
        registry.add("oval", "flatter")
    assert registry.get("oval") == "flat"


def test_the_first_line_of_a_docstring_describes_a_part():
    def part():
        """Do this.

        And explain.
        """

    assert first_line(part) == "Do this."
    assert first_line(lambda: None) == ""
