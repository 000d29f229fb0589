"""`depthprune export`: a finished checkpoint in another format."""

from pathlib import Path
from typing import Annotated

import typer

from depthprune.cli import options

Checkpoint = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="The folder of a finished checkpoint.", show_default=False)
]
Format = Annotated[
    str, typer.Option("--format", help="What to write; `depthprune list` names the formats.", show_default=False)
]
Target = Annotated[Path, typer.Option("--output", help="The folder to write.", show_default=False)]
Settings = Annotated[
    list[str] | None, typer.Option("--option", help="NAME=VALUE, an option of the format. Can be given again.")
]


def export(checkpoint: Checkpoint, format_name: Format, output: Target, option: Settings = None) -> None:
    """Write a finished checkpoint in another format, and prove it."""
    from depthprune.errors import UserError
    from depthprune.exporting import export as write
    from depthprune.exporting import registry

    registry.get(format_name)  # before the imports that silence libraries
    given = {}
    for text in option or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UserError(f"--option {text} is not NAME=VALUE, such as pooling=cls")
        given[name] = value
    options.quiet_libraries()
    done = write(checkpoint, output, format_name, given)
    print(f"{format_name}: {done.path} (proved: {done.proof})")
