"""What crashes parsers of JSON that are written in C, found without parsing."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

MOST_DEEP = 100
"""Levels of a record."""

_STRING = re.compile(rb'"(?:[^"\\\n]|\\.)*"')
_STEP = np.zeros(256, dtype=np.int64)
_STEP[list(b"[{")] = 1
_STEP[list(b"]}")] = -1
_BARE = re.compile(rb"[^\s,\[{\]}]")


def crashing(path: Path) -> tuple[int, str] | None:
    """The line of a JSON or JSON-lines file, from 1, that its parser may not survive, and why.

    pyarrow follows any depth on the stack, and takes `null` between records for a record. Raises
    `OSError` where the file cannot be read.
    """
    depth = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            bare = _STRING.sub(b"0", line.removeprefix(b"\xef\xbb\xbf"))
            depths = depth + np.cumsum(_STEP[np.frombuffer(bare, dtype=np.uint8)])
            if depths.max(initial=0) > MOST_DEEP:
                return number, f"nested deeper than {MOST_DEEP} levels"
            values = np.frombuffer(bare, dtype=np.uint8)[depths <= 0].tobytes()
            if _BARE.search(values.strip(b"]} \t\r\n")):
                return number, "not a JSON object"
            depth = max(int(depths[-1]), 0) if len(depths) else depth
    return None
