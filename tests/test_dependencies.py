"""What is imported is declared: a package that comes with another today need not tomorrow."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import depthprune

ROOT = Path(depthprune.__file__).parent
PROJECT = Path(__file__).parents[1] / "pyproject.toml"
DISTRIBUTIONS = {"yaml": "pyyaml", "sklearn": "scikit-learn", "google": "protobuf"}


def imported() -> dict[str, set[str]]:
    """Return package → files that import it."""
    found: dict[str, set[str]] = {}
    for file in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            for name in names:
                found.setdefault(name.partition(".")[0], set()).add(file.name)
    return found


def test_every_package_that_is_imported_is_declared():
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    declared = {re.split(r"[^\w-]", line)[0].replace("_", "-").lower() for line in lines}
    packages = imported()
    assert {"torch", "yaml", "huggingface_hub"} <= packages.keys()

    missing = {
        name: files
        for name, files in packages.items()
        if name not in sys.stdlib_module_names
        and name != "depthprune"
        and DISTRIBUTIONS.get(name, name).replace("_", "-").lower() not in declared
    }
    assert missing == {}
