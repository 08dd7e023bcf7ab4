"""Figures from papers: those that come with mbench, and a user's own."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mbench.core.errors import MbenchError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PublishedModel(_Strict):
    """What a model must have, besides its name, to be the paper's."""

    experts: int


class Figure(_Strict):
    """One figure, with the names that suites use."""

    where: str
    """Section and table of the paper."""
    model: str
    retain: Annotated[float, Field(gt=0, le=1)]
    method: str
    minus: str = ""
    """The other method, where the paper states a difference."""
    task: str
    """Name of a task (its declared metric is meant) or of the average."""
    seed: int | None = None
    over_seeds: Literal["mean", "std", "minimum", "maximum"] = "mean"
    value: float


class Published(_Strict):
    """The figures of one paper."""

    paper: str
    protocol: str
    """How its protocol differs from ours, in words."""
    models: dict[str, PublishedModel]
    figures: tuple[Figure, ...]


def shipped_figures() -> Path:
    """The folder of the figures that come with mbench."""
    return Path(str(importlib.resources.files("mbench_published")))


def load_published(*directories: Path) -> tuple[Published, ...]:
    """Read every YAML file of the directories; of two with the same name, the last one.

    Directories may be missing. Raises `MbenchError` for a malformed file.
    """
    import yaml

    files = {path.name: path for folder in directories for path in folder.glob("*.yaml")}
    papers = []
    for _, path in sorted(files.items()):
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
            papers.append(Published.model_validate(data))
        except (OSError, ValueError, yaml.YAMLError) as error:
            first = error.errors()[0] if isinstance(error, ValidationError) else None
            where = ".".join(map(str, first["loc"])) + ": " + first["msg"] if first else error
            line = " ".join(str(where).split())
            raise MbenchError(f"published figures in {path} are malformed: {line}") from error
    return tuple(papers)
