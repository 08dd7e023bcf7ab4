"""What runs of whole suites share: small models and the beginnings of texts."""

from __future__ import annotations

import pytest

from helpers.places import TEXTS
from helpers.stand_ins import deepseek, family, qwen

FAMILIES = {
    "olmoe": ("olmoe", 64, 8),
    "qwen3": ("qwen3_moe", 128, 8),
    "mixtral": ("mixtral", 8, 2),
    "deepseek-v2-lite": ("deepseek_v2", 64, 6),
    "gpt-oss": ("gpt_oss", 32, 4),
}
TEXT_BYTES = 100_000


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Name in the suites -> checkpoint."""
    folder = tmp_path_factory.mktemp("models")
    made = {name: family(folder / name, *shape) for name, shape in FAMILIES.items()}
    return made | {"qwen": qwen(folder / "qwen"), "deepseek": deepseek(folder / "deepseek")}


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    """Name of a corpus or text of the suites -> file with its first whole lines."""
    folder = tmp_path_factory.mktemp("texts")
    made = {}
    for name, path in TEXTS.items():
        made[name] = folder / f"{name}{path.suffix}"
        with path.open(encoding="utf-8") as lines:
            made[name].write_text("".join(lines.readlines(TEXT_BYTES)), encoding="utf-8")
    return made
