"""What a plugin puts into a report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from markupsafe import Markup


@dataclass(frozen=True)
class Panel:
    """A section of the report that a plugin fills.

    `content` is a DataFrame, shown without its index as a table that readers can sort; text,
    escaped; or `markupsafe.Markup`, which enters the page as it is: its author answers for it being
    whole and for every name in it being escaped (`Markup.format` does so).
    """

    title: str
    content: str | Markup | pd.DataFrame
