"""Entry point: the sub-commands, and one line for every error a user can cause.

Nothing heavy is imported here; a sub-command imports what it needs when it runs.
"""

import errno
import sys
from typing import Annotated

import typer

from depthprune import processes
from depthprune.cli import (
    analyses,
    auto,
    clean,
    drop,
    evaluate,
    export,
    finetune,
    heal,
    inspect,
    listing,
    quickstart,
    report,
    run,
    score,
    search,
    sweep,
)
from depthprune.cli.fields import spread
from depthprune.cli.help import SHORT, Command, settings, sorted_commands
from depthprune.cli.stopping import last_words, stoppable
from depthprune.errors import UserError

INTERRUPTED = 130

app = typer.Typer(
    name="depthprune",
    help="Make pre-trained transformers shallower: choose layers, drop them, heal the rest, measure, save.",
    epilog="Every command has an example: depthprune COMMAND --help. What to begin with: depthprune auto.",
    add_completion=False,
    context_settings=settings(),
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
COMMANDS = {
    "run": run.run,
    "drop": drop.drop,
    "score": score.score,
    "search": search.search,
    "auto": auto.auto,
    "sweep": sweep.sweep,
    "status": sweep.status,
    "clean": clean.clean,
    "report": report.report,
    "inspect": inspect.inspect,
    "heal": heal.heal,
    "finetune": finetune.finetune,
    "evaluate": evaluate.evaluate,
    "export": export.export,
    "probe": analyses.probe,
    "similarity": analyses.similarity,
    "list": listing.list_parts,
    "quickstart": quickstart.quickstart,
}
for _name, _function in sorted_commands(COMMANDS):
    app.command(_name, cls=Command, context_settings=settings(), short_help=SHORT.get(_name))(spread(_function))


def _version(show: bool) -> None:
    if show:
        from importlib.metadata import version

        print(f"depthprune {version('depthprune')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit
    if processes.count() > 1 and context.invoked_subcommand != "run":
        raise UserError(f"torchrun shares the training of 'run'; start 'depthprune {context.invoked_subcommand}' alone")


def main() -> None:
    """Run the command and exit: 0 done, 1 failed, 2 for what the user can fix, 130 interrupted, 143 terminated."""
    with stoppable() as stopped:
        code = _call()
    if code == INTERRUPTED:  # typer turns the KeyboardInterrupt into this
        if processes.is_first():
            print(f"depthprune: interrupted; {last_words(sys.argv[1:])}", file=sys.stderr)
        code = stopped.code
    sys.exit(code if isinstance(code, int) else 0)


def _call() -> object:
    try:
        return app(standalone_mode=False)
    except UserError as error:
        return _complain(str(error))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return _complain("no space left on the disk; free some and run again, what is recorded is kept")
    except Exception as error:
        # Typer's usage errors: matched by shape, since Typer may bring a click of its own.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        command = next((word for word in sys.argv[1:] if word in COMMANDS), "")
        return _complain(f"{message().rstrip('.?')}; try {f'depthprune {command}'.strip()} --help")


def _complain(message: str) -> int:
    print(f"depthprune: {' '.join(message.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
