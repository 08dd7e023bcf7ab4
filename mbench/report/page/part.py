"""The building blocks of the page: parts with a heading, and the blocks in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from markupsafe import Markup

from mbench.report.charts.style import Chart
from mbench.report.page.score_maps import ScoreMaps
from mbench.report.tables.table import Table


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    quiet: bool = False
    """Whether it only explains what it stands beside, and is set in grey."""


@dataclass(frozen=True)
class Notes:
    """A list of sentences."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Charts:
    """Charts in a row with one legend, that of the first."""

    charts: tuple[Chart, ...]
    small: bool = False


@dataclass(frozen=True)
class Stack:
    """Blocks below each other."""

    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class SideBySide:
    """Blocks next to each other where there is room; each chart has its own legend."""

    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Part:
    """Blocks under a heading, ours or a plugin's."""

    title: str
    blocks: tuple[Block, ...] = ()
    id: str = ""
    """Its anchor on the page, empty if it has none."""
    folded: bool = False
    kind: str = ""
    """A class of the style sheet: `budget`."""
    failure: str = ""
    """Why there is nothing to show, if a plugin failed."""


Block: TypeAlias = (
    Table | Chart | ScoreMaps | Markup | Text | Notes | Charts | Stack | SideBySide | Part
)
"""What a part may hold; markup is inserted unescaped."""

BLOCKS = (Table, Chart, ScoreMaps, Markup, Text, Notes, Charts, Stack, SideBySide, Part)
