"""The names of a table's items, held once however many tables have the same."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class ItemNames:
    """The column `item` of all tables of the same items in the same order."""

    column: pd.Series
    """Numbered from 0."""

    @cached_property
    def array(self) -> np.ndarray:
        """object [items], not to be written to."""
        array: np.ndarray = self.column.to_numpy(object)
        array.flags.writeable = False
        return array


_known: weakref.WeakValueDictionary[tuple[Any, ...], ItemNames] = weakref.WeakValueDictionary()


def shared(items: pd.DataFrame) -> tuple[pd.DataFrame, ItemNames]:
    """The same table on names that every other table of these items has, too."""
    column = items["item"].reset_index(drop=True)
    ends = (column.iloc[0], column.iloc[-1]) if len(column) else ()
    key = (str(column.dtype), len(column), *ends)
    names = _known.get(key)
    if names is None or not names.column.equals(column):
        names = ItemNames(column)
        _known[key] = names
    return items.assign(item=names.column.set_axis(items.index)), names
