"""What the page is made of: parts with a heading, and the blocks that stand in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from markupsafe import Markup

from mbench.report.charts.mask_pictures import MaskPictures
from mbench.report.charts.style import Chart
from mbench.report.tables.table import Table


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    quiet: bool = False
    """Whether it explains what stands beside it, and recedes."""


@dataclass(frozen=True)
class Notes:
    """Sentences, one a line."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Charts:
    """Charts in a row that share the legend of the first."""

    charts: tuple[Chart, ...]
    small: bool = False


@dataclass(frozen=True)
class Stack:
    """Blocks under one another."""

    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class SideBySide:
    """Blocks beside each other where there is room; a chart has its legend under it."""

    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Part:
    """Blocks under a heading, ours or a plugin's."""

    title: str
    blocks: tuple[Block, ...] = ()
    id: str = ""
    """Its address on the page, empty for parts that have none."""
    folded: bool = False
    kind: str = ""
    """A class of the style sheet: `budget`."""
    failure: str = ""
    """Why it could not be made."""


Block: TypeAlias = (
    Table | Chart | MaskPictures | Markup | Text | Notes | Charts | Stack | SideBySide | Part
)
"""What may stand in a part; markup enters the page as it is."""

BLOCKS = (Table, Chart, MaskPictures, Markup, Text, Notes, Charts, Stack, SideBySide, Part)
