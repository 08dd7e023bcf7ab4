"""What the verbs print: text for a console, JSON for programs, and where something was written."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from mbench.core.clean_text import cleaned, redacted, shown_place, visible
from mbench.core.output_stream import behind, output_stream

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_WIDTH = 120
"""Columns of the output where there is no terminal."""


def console_of(*, stderr: bool) -> Console:
    """A console for text that is `clean`; without a terminal it is wide enough for a table."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    if not stream.isatty():
        return Console(file=stream, width=PLAIN_WIDTH)
    # The codes of its colours must stay as they are.
    return Console(file=output_stream(behind(stream), clean=False))


def clean(text: str) -> str:
    """Text for a console on a terminal."""
    return redacted(visible(text))


def say(line: str, *, hang: int = 2, err: bool = False) -> None:
    """Print a line; on a terminal it is broken between words, and goes on `hang` columns in."""
    stream = sys.stderr if err else sys.stdout
    if stream.isatty():
        columns = shutil.get_terminal_size().columns
        inner = " " * (hang if hang <= columns - 30 else 2)
        line = textwrap.fill(
            line,
            columns,
            subsequent_indent=inner,
            break_long_words=False,
            break_on_hyphens=False,
        )
    click.echo(line, err=err)


def print_json(value: Any, stream: TextIO | None = None) -> None:
    """Print one JSON object as one line, to standard output or to `stream`."""
    click.echo(json.dumps(cleaned(value), allow_nan=False), file=stream)


def print_place(path: Path) -> None:
    """Print where something was written, as a shell finds it."""
    place = visible(shown_place(path))
    click.echo(place, file=output_stream(behind(sys.stdout), clean=False))
