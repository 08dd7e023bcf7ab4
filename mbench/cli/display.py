"""Shows progress: a bar in a terminal, plain lines elsewhere, JSON lines for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click

from mbench.run.progress import Progress


class PlainLines(Progress):
    """One line per finished mask or profile on standard error; no escape codes."""

    def event(self, kind: str, **values: Any) -> None:
        """Print finished profiles, and masks and evaluations that failed."""
        if kind == "profile":
            click.echo(
                f"profiled {values['model']} on {values['corpus']}: {values['tokens']:,} tokens",
                err=True,
            )
        elif values.get("status") not in (None, "ok"):
            name = values.get("cell") or f"{values.get('mask')}: {values.get('task')}"
            click.echo(f"{values['status']} {name}: {values['reason']}", err=True)

    def warning(self, text: str) -> None:
        """Print the warning."""
        click.echo(f"warning: {text}", err=True)

    def figures(self, label: str, metrics: Mapping[str, float]) -> None:
        """One line of figures."""
        click.echo(f"{label}  {_figures(metrics)}", err=True)


class JsonLines(Progress):
    """One JSON object per line on standard output, nothing else."""

    def event(self, kind: str, **values: Any) -> None:
        """Print the event."""
        # JSON has no infinity, which a perplexity can be.
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }
        click.echo(json.dumps({"event": kind, **finite}, allow_nan=False))

    def warning(self, text: str) -> None:
        """Print the warning as an event."""
        self.event("warning", text=text)


class Quiet(Progress):
    """Warnings only."""

    def warning(self, text: str) -> None:
        """Print the warning."""
        click.echo(f"warning: {text}", err=True)


class LiveBar(PlainLines):
    """A bar over all forward tokens with the time left; results scroll above it."""

    def __init__(self) -> None:
        """Make the bar; `watching` shows it."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Task,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bars
        from rich.text import Text

        class _TimeLeft(TimeRemainingColumn):
            """Empty until there is an estimate."""

            def render(self, task: Task) -> Text:
                left = super().render(task) if task.time_remaining is not None else Text("")
                return Text(f"{left} left") if left.plain else left

        self.bars = Bars(
            BarColumn(24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("elapsed"),
            _TimeLeft(compact=True),
            TextColumn("{task.description}", markup=False),
            console=Console(stderr=True),
            # Speed over the last minutes: profiling and evaluation differ.
            speed_estimate_period=60,
        )
        self._task = self.bars.add_task("starting", total=None)

    def total(self, tokens: int) -> None:
        """Set the bar's length."""
        self.bars.update(self._task, total=tokens)

    def advance(self, tokens: int) -> None:
        """Move the bar."""
        self.bars.advance(self._task, tokens)

    def stage(self, text: str) -> None:
        """Show the present stage."""
        self.bars.update(self._task, description=text)


@contextmanager
def watching(*, as_json: bool, quiet: bool) -> Iterator[Progress]:
    """The display that suits the options and the terminal."""
    if as_json:
        yield JsonLines()
    elif quiet:
        yield Quiet()
    elif sys.stderr.isatty():
        live = LiveBar()
        with live.bars:
            yield live
    else:
        yield PlainLines()


def _figures(metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
