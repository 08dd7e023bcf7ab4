"""What a run reports while it goes on; the command line decides how to show it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mbench.core.early import EarlyFigure


class Progress:
    """Receives every report of a run and shows none; displays override what they show."""

    @contextmanager
    def fetching(self, size: int) -> Iterator[Callable[[int], object]]:
        """So many bytes are fetched inside the block; gives what is to be told of those that came.

        It may be told in any thread.
        """
        yield lambda came: None

    def total(self, tokens: int) -> None:
        """Forward tokens of the whole run as far as known by now, cached ones left out."""

    def advance(self, tokens: int) -> None:
        """So many more forward tokens are done."""

    def time_left(self, seconds: float) -> None:
        """What is left of the run is expected to take so long from now on."""

    def stage(self, text: str) -> None:
        """What is being worked on now."""

    def event(self, kind: str, **values: Any) -> None:
        """Something ended: a profile, a mask, an evaluation. Values are plain JSON."""

    def warning(self, text: str) -> None:
        """Something the user should know and need not act upon."""

    def figures(
        self,
        label: str,
        metrics: Mapping[str, float],
        early: Mapping[str, EarlyFigure] | None = None,
    ) -> None:
        """The declared figures of one evaluated mask.

        `early` has what is known of those that are estimated from some of the items.
        """


def figures_in_words(
    metrics: Mapping[str, float], early: Mapping[str, EarlyFigure] | None = None
) -> str:
    """`ppl 12.3  piqa ≈ 0.712 ± 0.010 (551/1838 items)`: how well it is known what is estimated."""
    return "  ".join(
        f"{name} {value:.4g}" if figure is None else f"{name} ≈ {value:.4g}{_known(figure)}"
        for name, value in metrics.items()
        for figure in ((early or {}).get(name),)
    )


def _known(figure: EarlyFigure) -> str:
    known = f", {figure.untold}" if figure.untold else f" ± {figure.half:.2g}"
    return f"{known} ({figure.items}/{figure.of} items)"
