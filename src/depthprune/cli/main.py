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
    drop,
    evaluate,
    finetune,
    inspect,
    listing,
    quickstart,
    report,
    run,
    score,
    search,
    sweep,
)
from depthprune.cli.stopping import last_words, stoppable
from depthprune.errors import UserError

INTERRUPTED = 130

# Plain help: rich's takes three times as long to come up.
app = typer.Typer(
    name="depthprune",
    help="Make pre-trained transformers shallower: choose layers, drop them, heal the rest, measure, save.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("run")(run.run)
app.command("drop")(drop.drop)
app.command("score")(score.score)
app.command("search")(search.search)
app.command("auto")(auto.auto)
app.command("sweep")(sweep.sweep)
app.command("status")(sweep.status)
app.command("report")(report.report)
app.command("inspect")(inspect.inspect)
app.command("finetune")(finetune.finetune)
app.command("evaluate")(evaluate.evaluate)
app.command("probe")(analyses.probe)
app.command("similarity")(analyses.similarity)
app.command("list")(listing.list_parts)
app.command("quickstart")(quickstart.quickstart)


def _version(show: bool) -> None:
    if show:
        from importlib.metadata import version

        print(f"depthprune {version('depthprune')}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if processes.count() > 1 and context.invoked_subcommand != "run":
        raise UserError(f"torchrun shares the training of 'run'; start 'depthprune {context.invoked_subcommand}' alone")


def main() -> None:
    """Run the command and exit: 0 done, 1 failed, 2 for what the user can mend, 130 interrupted, 143 terminated."""
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
        return _complain("no space left on the disk; free some and run again, what is recorded stays")
    except Exception as error:
        # Typer's usage errors: matched by shape, since Typer may bring a click of its own.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        return _complain(f"{message().rstrip('.')}; see 'depthprune --help'")


def _complain(message: str) -> int:
    print(f"depthprune: {' '.join(message.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
