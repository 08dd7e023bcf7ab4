"""All that a method could change for the whole process: what a run puts back, and a little more."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from mbench.core.process_state import put_back, snapshot

WholeState = tuple[dict[str, Any], dict[str, str], Any]


def whole_state() -> WholeState:
    """States and settings that a run watches, the environment, and numpy's handling of errors."""
    return snapshot(), dict(os.environ), np.geterr()


def put_all_back(before: WholeState) -> str:
    """Put everything back; returns what the error says of the first change, or an empty text."""
    states, environment, errors = before
    problem = put_back(states)
    now = dict(os.environ)
    for name in sorted({*now, *environment}):
        if now.get(name) != environment.get(name):
            problem = problem or f"changed {name} in the environment, which all methods share"
            os.environ.pop(name, None)
            if name in environment:
                os.environ[name] = environment[name]
    if np.geterr() != errors:
        np.seterr(**errors)
        problem = problem or "changed numpy's handling of errors: use `with np.errstate(...)`"
    return problem
