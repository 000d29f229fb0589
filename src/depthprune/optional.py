"""Import optional dependencies, with an error that names the extra."""

import importlib
from types import ModuleType

from depthprune.errors import UserError


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: dotted name of the module to import.
        extra: the extra of depthprune that installs it.
        purpose: what it is for, as the start of a sentence: "scoring a task".

    Raises:
        UserError: if the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise  # the module is installed but one of its own imports is missing: another problem
        name = module.split(".")[0]
        raise UserError(f"{purpose} needs '{name}': pip install 'depthprune[{extra}]'") from None
