"""Conversations written in every format that they may have, by libraries other than their reader's.

Their field is `talk`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence

import pyarrow
import pyarrow.feather
import pyarrow.parquet

Talk = Sequence[dict[str, str]]


def talk_lines(talks: Sequence[object]) -> bytes:
    return "".join(json.dumps({"n": 1, "talk": talk}) + "\n" for talk in talks).encode()


def _by_columns(talks: Sequence[Talk]) -> list[dict[str, list[str]]]:
    """As some datasets declare conversations."""
    return [{key: [m[key] for m in talk] for key in ("role", "content")} for talk in talks]


def _wide(talks: Sequence[Talk]) -> list[list[dict[str, str | None]]]:
    """With keys that messages lack, as tables have them."""
    return [[{"name": None, **message} for message in talk] for talk in talks]


def _parquet(held: Sequence[object]) -> bytes:
    sink = io.BytesIO()
    table = pyarrow.table({"talk": held, "n": [1] * len(held)})
    pyarrow.parquet.write_table(table, sink, row_group_size=2)
    return sink.getvalue()


def _arrow(held: Sequence[object]) -> bytes:
    sink = io.BytesIO()
    pyarrow.feather.write_feather(pyarrow.table({"talk": held}), sink, compression="zstd")
    return sink.getvalue()


TALK_FORMATS: dict[str, Callable[[Sequence[Talk]], bytes]] = {
    "a.jsonl": talk_lines,
    "columns.jsonl": lambda talks: talk_lines(_by_columns(talks)),
    "list.json": lambda talks: json.dumps([{"talk": talk} for talk in talks], indent=1).encode(),
    "a.parquet": lambda talks: _parquet(_wide(talks)),
    "columns.parquet": lambda talks: _parquet(_by_columns(talks)),
    "a.arrow": lambda talks: _arrow(_wide(talks)),
}
"""By a name that such a file may have."""
