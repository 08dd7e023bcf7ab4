"""The kinds of values in suite files: names, counts, paths, and what bounds them."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
MethodName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(@[A-Za-z0-9][A-Za-z0-9._-]*)?$", max_length=160),
]
"""Also `METHOD@CORPUS`: the method, calibrated on that corpus alone."""


def _of_a_user(path: str) -> str:
    if os.path.expanduser(path).startswith("~"):
        raise ValueError(f"{path.partition('/')[0]} is no user's home; a file of that name is ./~…")
    return path


MOST_SEEDS = 1000


def _listed(seeds: Any) -> Any:
    """So many seeds, counted from 0, where a number stands for a list."""
    number = isinstance(seeds, int) and not isinstance(seeds, bool)
    if number and 1 <= seeds <= MOST_SEEDS:
        return tuple(range(seeds))
    if number or not isinstance(seeds, list | tuple):
        raise ValueError(
            f"give a list of seeds, e.g. [0, 1, 42], or how many of 0, 1, 2, ... from 1 to"
            f" {MOST_SEEDS}"
        )
    return tuple(seeds)  # in JSON a list, which is no tuple


Words = Annotated[str, Field(max_length=10_000)]
Label = Annotated[str, Field(min_length=1, max_length=200)]
Count = Annotated[int, Field(ge=1, le=10**15)]
Tokens = Annotated[int, Field(ge=1, le=2**24)]
"""Of one sequence: no model has more positions."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Seeds = Annotated[tuple[Seed, ...], Field(max_length=MOST_SEEDS), BeforeValidator(_listed)]
HubId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$", max_length=200)]
Revision = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][\w.+-]*(/[A-Za-z0-9][\w.+-]*)*$", max_length=200)
]
LocalPath = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_of_a_user)]
DtypeName = Literal["auto", "float32", "bfloat16", "float16"]
ExpertsKept = Literal["computed", "stored"]
"""How the experts of a checkpoint in FP8 lie in memory: as numbers, or as the files have them."""
AttentionName = Literal["auto", "sdpa", "eager"]
RetainRatio = Annotated[float, Field(gt=0, lt=1)]


class Strict(BaseModel):
    """Unknown keys are errors, and values are not converted or changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)
