"""What is known of a method's masks beside their scores: layers, stand-ins, stability, cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mbench.core.cell_results import CellResult
from mbench.core.results import Results


@dataclass(frozen=True)
class MaskFacts:
    """Of one mask, or of those of several seeds together."""

    fewest: int
    """Experts that the layer with the fewest keeps."""
    most: int
    stand_in: str
    """What stands in for dropped experts: `constants`, `merged`, or nothing."""
    stability: float | None
    """Share of the kept experts that stay on redrawn calibration text; the mean over seeds."""
    calibration_tokens: int | None
    """Of the method's corpora and those of its candidate, each once; None if not on record."""
    search_tokens: int
    """Forward tokens of its own search for one mask; the mean over seeds."""

    @property
    def cost(self) -> int | None:
        """Tokens that making one mask takes, all in all."""
        known = self.calibration_tokens
        return None if known is None else known + self.search_tokens

    @property
    def uneven(self) -> bool:
        """Whether layers keep different numbers."""
        return self.fewest != self.most

    @property
    def kept(self) -> str:
        """Experts kept per layer: `12`, or `8-16`."""
        return f"{self.fewest}–{self.most}" if self.uneven else str(self.fewest)

    @property
    def marks(self) -> tuple[str, ...]:
        """What sets it apart from a plain mask, for a place beside its name."""
        layers = (f"{self.kept} kept a layer",) if self.uneven else ()
        return (*layers, *((self.stand_in,) if self.stand_in else ()))


def mask_facts(results: Results, cells: tuple[CellResult, ...]) -> MaskFacts | None:
    """Of the cells of a method at a budget; None where none of them has a mask."""
    keys = [(cell.model, cell.mask) for cell in cells if cell.mask]
    counts = [results.masks[key].sum(axis=1) for key in keys if key in results.masks]
    if not counts:
        return None
    known = [cell.stability for cell in cells if cell.stability is not None]
    return MaskFacts(
        fewest=int(min(own.min() for own in counts)),
        most=int(max(own.max() for own in counts)),
        stand_in=next(filter(None, (results.stand_in_of(*key) for key in keys)), ""),
        stability=math.fsum(known) / len(known) if len(known) == len(cells) else None,
        calibration_tokens=results.provenance.calibration_tokens(cells[0].model, cells[0].method),
        search_tokens=round(math.fsum(cell.search_tokens for cell in cells) / len(cells)),
    )
