"""Shows progress: a bar in a terminal, plain lines elsewhere, JSON lines for programs."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

import click

from mbench.cli.output import clean, console_of, print_json
from mbench.cli.summary import duration
from mbench.core.debugger import debugging
from mbench.core.early import EarlyFigure
from mbench.core.output_stream import clean_output, output_stream
from mbench.run.progress import Progress, figures_in_words


class PlainLines(Progress):
    """One line per finished mask or profile on standard error; no escape codes."""

    @contextmanager
    def fetching(self, size: int) -> Iterator[Callable[[int], object]]:
        """A line at the beginning, and one every ten seconds."""
        if size:
            click.echo(f"fetching {size_in_words(size)}", err=True)
        with _told_every(10.0, size, lambda text: click.echo(text, err=True)) as advance:
            yield advance

    def event(self, kind: str, **values: Any) -> None:
        """Print forecasts, finished profiles, and masks and evaluations that failed."""
        if kind == "note":
            click.echo(values["text"], err=True)
        elif kind == "forecast" and values["seconds"] < 1:
            pass  # all is done but the report
        elif kind == "forecast":
            left = duration(values["seconds"])
            click.echo(f"{values['model']}: about {left} more, at the speed measured", err=True)
        elif kind == "profile":
            click.echo(
                f"profiled {values['model']} on {values['corpus']}: {values['tokens']:,} tokens",
                err=True,
            )
        elif values.get("status") not in (None, "ok", "early"):
            name = values.get("cell") or f"{values.get('mask')}: {values.get('task')}"
            click.echo(f"{values['status']} {name}: {values['reason']}", err=True)

    def warning(self, text: str) -> None:
        """Print the warning."""
        click.echo(f"warning: {text}", err=True)

    def figures(
        self,
        label: str,
        metrics: Mapping[str, float],
        early: Mapping[str, EarlyFigure] | None = None,
    ) -> None:
        """One line of figures."""
        click.echo(f"{label}  {figures_in_words(metrics, early)}", err=True)


class JsonLines(Progress):
    """One JSON object per line, nothing else."""

    def __init__(self, stream: TextIO) -> None:
        """Print to `stream` (see `json_only`)."""
        self._stream = stream

    @contextmanager
    def fetching(self, size: int) -> Iterator[Callable[[int], object]]:
        """An event at the beginning and at the end."""
        self.event("fetch", bytes=size)
        yield lambda came: None
        self.event("fetched", bytes=size)

    def event(self, kind: str, **values: Any) -> None:
        """Print the event."""
        # JSON has no infinity, which a perplexity can be.
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }
        print_json({"event": kind, **finite}, self._stream)

    def warning(self, text: str) -> None:
        """Print the warning as an event."""
        self.event("warning", text=text)


class Quiet(Progress):
    """Warnings only."""

    def warning(self, text: str) -> None:
        """Print the warning."""
        click.echo(f"warning: {text}", err=True)


@dataclass
class _Told:
    """When the run expects to be done (`time.monotonic`)."""

    until: float | None = None


class LiveBar(PlainLines):
    """A bar over all forward tokens with the time left; results scroll above it."""

    def __init__(self) -> None:
        """Make the bar; `watching` shows it."""
        from rich.progress import (
            BarColumn,
            Task,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bars
        from rich.table import Column
        from rich.text import Text

        told = self._told = _Told()

        class _TimeLeft(TimeRemainingColumn):
            """The run's own forecast, else the bar's; empty until there is one."""

            def render(self, task: Task) -> Text:
                if told.until is not None:
                    return Text(f"{duration(max(0.0, told.until - time.monotonic()))} left")
                left = super().render(task) if task.time_remaining is not None else Text("")
                return Text(f"{left} left") if left.plain else left

        self.bars = Bars(
            BarColumn(24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("elapsed"),
            _TimeLeft(compact=True),
            # What does not fit beside the others is cut off: a second line would make them jump.
            TextColumn(
                "{task.description}",
                markup=False,
                table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
            ),
            console=console_of(stderr=True),
            expand=True,
            # Speed over the last minutes: profiling and evaluation differ.
            speed_estimate_period=60,
        )
        self._task = self.bars.add_task("starting", total=None)

    @contextmanager
    def fetching(self, size: int) -> Iterator[Callable[[int], object]]:
        """A bar of its own over all bytes."""
        if not size:
            yield lambda came: None
            return
        bar = self.bars.add_task(f"fetching {size_in_words(size)}", total=size)
        try:
            yield lambda came: self.bars.advance(bar, came)
        finally:
            self.bars.remove_task(bar)

    def total(self, tokens: int) -> None:
        """Set the bar's length."""
        self.bars.update(self._task, total=tokens)

    def advance(self, tokens: int) -> None:
        """Move the bar."""
        self.bars.advance(self._task, tokens)

    def time_left(self, seconds: float) -> None:
        """Count down from it."""
        self._told.until = time.monotonic() + seconds

    def stage(self, text: str) -> None:
        """Show the present stage."""
        self.bars.update(self._task, description=clean(text))


@contextmanager
def json_only() -> Iterator[TextIO]:
    """The stream for JSON. All else that is written to standard output goes to standard error.

    That holds for whatever plugins, libraries and programs that they start write, and however.
    """
    out = sys.stdout
    try:
        out.flush()
        descriptor, instead = out.fileno(), sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):
        # Not a file, as in a test: only what Python writes can be told apart.
        with contextlib.redirect_stdout(sys.stderr):
            yield out
        return
    with open(os.dup(descriptor), "w", encoding="utf-8", buffering=1) as stream:
        os.dup2(instead, descriptor)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                yield output_stream(stream)
        finally:
            with contextlib.suppress(OSError):
                stream.flush()
                os.dup2(stream.fileno(), descriptor)


@contextmanager
def watching(*, json_stream: TextIO | None, quiet: bool) -> Iterator[Progress]:
    """The display that suits the options and the terminal."""
    if json_stream is not None:
        yield JsonLines(json_stream)
    elif quiet:
        yield Quiet()
    elif sys.stderr.isatty() and not debugging():
        live = LiveBar()
        # What is printed meanwhile scrolls above the bar, through a stream of the bar's own.
        with live.bars, clean_output():
            yield live
    else:
        yield PlainLines()


@contextmanager
def _told_every(
    seconds: float, size: int, tell: Callable[[str], object]
) -> Iterator[Callable[[int], object]]:
    """Gives what is told of bytes that came, and says from time to time how many are left."""
    start = told = time.monotonic()
    came = 0

    def advance(more: int) -> None:
        nonlocal came, told
        came += more
        now = time.monotonic()
        if now - told >= seconds and came > 0:
            told = now
            left = duration((now - start) * (size - came) / came)
            tell(f"fetched {size_in_words(came)} of {size_in_words(size)}, {left} left")

    yield advance


def size_in_words(size: int) -> str:
    """Bytes in the unit that suits them."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
