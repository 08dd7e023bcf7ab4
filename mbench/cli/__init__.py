"""The command line: one verb a file, loaded only when it is called."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import traceback

import click

DEBUG, PDB = "--debug", "--pdb"

COMPLETING = "_MBENCH_COMPLETE"
"""Set by a shell that asks for completions (see `mbench completion`)."""

VERBS = {
    "run": "Run a suite and write its leaderboard.",
    "worker": "Do a share of a suite's work, beside others that use the same store.",
    "plan": "Show what a run would do, without loading a model.",
    "check": "Check a suite, its plugins and its budgets.",
    "scores": "Show the scores of one method, without evaluating anything.",
    "lock": "Fetch all inputs of a suite, and write down what repeats its run exactly.",
    "view": "Show reports in a browser, and follow a run.",
    "report": "Render a leaderboard again, of one run or of several merged.",
    "compare": "Compare two runs, or two methods, on the same items.",
    "export": "Write the pruned checkpoint of one mask of a finished run.",
    "identify": "Say which experts a pruned checkpoint holds, and what else it changes.",
    "suites": "List the suites that come with mbench.",
    "schema": "Print the JSON Schema of suite files, for editors.",
    "completion": "Print what makes a shell complete commands, options and names.",
    "store": "Look at the store, check it, thin it out, copy from it.",
    "merge": "Bring stores together that were apart.",
    "new": "Write the beginnings of a plugin or a suite.",
    "plugins": "List what plugins offer, and those that failed to load.",
}

USER_ERROR = 2
BUG = 70


class _Verbs(click.Group):
    """Knows its commands by name and help line, so that `--help` imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"mbench.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in VERBS and not ctx.resilient_parsing:
            from mbench.core.errors import MbenchError, unknown

            raise MbenchError(unknown("command", args[0], VERBS))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        import mbench

        click.echo(f"mbench {mbench.__version__}")
        ctx.exit()


@click.group(
    cls=_Verbs,
    # Codes of colours in a text are made visible, not left out.
    context_settings={"help_option_names": ["-h", "--help"], "color": True},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
@click.option(
    DEBUG,
    is_flag=True,
    expose_value=False,
    help="Show the tracebacks of errors; may also stand after a command.",
)
@click.option(
    PDB,
    is_flag=True,
    expose_value=False,
    help="Start Python's debugger at a plugin's error; may also stand after a command.",
)
def group() -> None:
    """Compare expert-pruning methods for sparse Mixture-of-Experts language models."""


def main() -> None:
    """Run the command line; a user's mistake is one line and exit status 2.

    Ctrl-C, SIGTERM and SIGHUP are one line and 128 and the signal's number; what nobody foresaw is
    one line that calls it a bug, and 70.
    """
    from mbench.core import interruption
    from mbench.core.output_stream import clean_output, lost_output

    try:
        # What a shell reads is bytes, of names that are checked where they are completed.
        completing = COMPLETING in os.environ
        with interruption.watched(), contextlib.nullcontext() if completing else clean_output():
            status = _status()
            if lost := lost_output():
                click.echo(f"error: cannot print: {lost}", err=True)
                status = status or USER_ERROR
        sys.exit(status)
    # Before the command has begun, or between the handling of one signal and the end.
    except KeyboardInterrupt:
        sys.exit(tell_interrupted())


def tell_interrupted() -> int:
    """Say, once in a process, how to go on; return the exit status."""
    from mbench.core import interruption

    if interruption.first_telling():
        with contextlib.suppress(OSError):
            click.echo("interrupted; run the same command again to continue", err=True)
    return interruption.exit_status()


def _status() -> int:
    from mbench.core.debugger import debugger
    from mbench.core.errors import (
        AdmissionError,
        MbenchError,
        MergeError,
        printable,
        shortened,
        tracebacks_shown,
    )
    from mbench.core.interruption import interrupted

    words = [word for word in sys.argv[1:] if word not in (DEBUG, PDB)]
    debug = DEBUG in sys.argv
    try:
        with (
            tracebacks_shown() if debug else contextlib.nullcontext(),
            debugger() if PDB in sys.argv else contextlib.nullcontext(),
        ):
            # Otherwise click turns Ctrl-C into exit status 1.
            return (
                group(words, prog_name="mbench", complete_var=COMPLETING, standalone_mode=False)
                or 0
            )
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, (click.Abort, KeyboardInterrupt)) or interrupted():
            # Whatever a signal made of the code that it met, e.g. of an import.
            return tell_interrupted()
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            error.show()
            return error.exit_code
        if isinstance(error, click.ClickException):
            message = shortened(printable(error.format_message()), 300)
            click.echo(f"error: {message}", err=True)
            return error.exit_code
        if isinstance(error, MbenchError):
            several = isinstance(error, AdmissionError | MergeError)
            lines = str(error).split("\n") if several else [str(error)]
            click.echo("error: " + "\n".join(map(printable, lines)), err=True)
            return USER_ERROR
        if not isinstance(error, Exception):
            raise
        click.echo(f"error: {_bug(error)}", err=True)
        return BUG


def _bug(error: Exception) -> str:
    """What to report of an error that mbench should have foreseen."""
    from mbench.core.errors import one_line, printable

    package = os.path.dirname(os.path.dirname(__file__))
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(package)][-1:]
    where = "".join(f" in {os.path.relpath(f.filename, package)}:{f.lineno}" for f in ours)
    return f"a bug of mbench{where}: {printable(one_line(error))}; please report what {DEBUG} shows"
