"""Errors that a user can cause.

Each message is one line: what is wrong with which value, then what to do. The command prints it and exits with 2.
"""


class UserError(Exception):
    """Something the user asked for cannot be done; the message says what and what to do instead."""


class PlanError(UserError):
    """Layers that do not exist, or a plan that would drop all of them."""


class CannotDropError(UserError):
    """A model, or a layer of it, that cannot be dropped exactly; the message names the layer and the reason."""


class CannotExportError(UserError):
    """A checkpoint that a format cannot represent exactly."""


class ExtensionError(UserError):
    """A part that another distribution registers and that does not work; the message names the two."""


class LoadError(UserError):
    """A model or a data set that cannot be read."""


class OutputError(UserError):
    """An output that cannot be written."""
