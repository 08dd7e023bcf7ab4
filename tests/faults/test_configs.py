"""Whatever the files of a checkpoint hold, it is described, loaded, or refused soon in one line."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st

from helpers.family_models import tiny_model
from helpers.odd_values import (
    Raw,
    TooLong,
    flow,
    places_of_errors,
    stopped_after,
    try_many,
    with_damage,
    with_mistakes,
)
from helpers.tiny_models import mixtral, qwen2_moe, save
from mbench.core.errors import MbenchError
from mbench.moe.load import describe, load

FAMILIES = ["qwen2_moe", "mixtral", "deepseek_v3", "gpt_oss", "gemma4", "nemotron_h"]
FILES = [
    *("config.json", "config.json", "config.json", "generation_config.json", "tokenizer.json"),
    *("tokenizer_config.json", "model.safetensors.index.json"),
]
ODD = [
    *(None, True, False, 0, -1, 1, 2, 3, 7, 10**6, 10**9, 10**12, 2**31, 2**63, 2**64, 10**30),
    *(0.5, -0.5, 1e308, "", "x", "auto", "gelu", "softmax", "../x", "a/b", "\x1b[31m", "x" * 5000),
    *([], {}, [None], [[]], [1, 2, 3], {"a": 1}, ["full_attention"], {"rope_type": "yarn"}),
    *({"factor": 0}, {"rope_type": "x"}, {"rope_theta": None}, {"auto_map": 1}, ["moe", "x"]),
    *(
        Raw("NaN"),
        Raw("Infinity"),
        Raw("-Infinity"),
        Raw("1e999"),
        Raw("9" * 5000),
        Raw('"\\ud800"'),
    ),
    *(
        Raw("[" * 2000 + "]" * 2000),
        Raw("{" * 3),
        Raw("nul"),
        Raw("'x'"),
        Raw("[1,]"),
        Raw("// x\n1"),
    ),
]
odd_fields = st.sampled_from(ODD)
SECONDS = 30.0
"""Of the processor, on a slow machine; a good model takes a tenth of a second."""


def written(tree):
    """JSON, but for what `Raw` holds."""
    return flow(tree).replace(".nan", "NaN").replace(".inf", "Infinity")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Family -> a checkpoint with all kinds of files that are read."""
    return made(tmp_path_factory.mktemp("families"))


def made(folder):
    places = {}
    for family in FAMILIES:
        known = {"qwen2_moe": qwen2_moe, "mixtral": mixtral}
        model = known[family]() if family in known else tiny_model(family)
        places[family] = place = save(model, folder / family)
        with torch.no_grad():
            (place / "model.safetensors").unlink()
            model.save_pretrained(place, max_shard_size="20KB")
        model.generation_config.save_pretrained(place)
        assert tried(place) == ("loaded", None)
    return places


def tried(place: Path) -> tuple[str, str | None]:
    """What came of describing and loading a checkpoint, and what is wrong with how it ended."""
    started = time.process_time()
    try:
        with stopped_after(5 * SECONDS):
            describe(str(place))
            load(str(place), device="cpu")
    except TooLong:
        return "other", "does not end"
    except MbenchError as error:
        status, line = "refused", str(error)
        if "\n" in line or len(line) > 3000:
            return status, f"not one line: {line[-80:]!r}"
        if str(place) not in line:
            return status, f"names no model: {line[:60]}"
        if "trust" in line.replace(str(place), "") and "auto_map" not in text_of(place):
            return status, f"suggests trusting code: {line[-80:]}"
    except BaseException as error:
        return "other", f"traceback: {type(error).__name__} at {places_of_errors(error)}"
    else:
        status = "loaded"
    seconds = time.process_time() - started
    return status, None if seconds < SECONDS else f"took {round(seconds)} s"


def text_of(place: Path) -> str:
    names = ("config.json", "tokenizer_config.json")
    return "".join((place / name).read_text(errors="replace") for name in names)


@st.composite
def changes(draw, checkpoints):
    """A family, one of its files, and what it holds now."""
    family, name = draw(st.sampled_from(FAMILIES)), draw(st.sampled_from(FILES))
    text = (checkpoints[family] / name).read_text()
    if draw(st.integers(0, 3)) == 0:
        return family, name, draw(with_damage(text))
    tree = json.loads(text)
    if name == "tokenizer.json":
        words = tree["model"]["vocab"]
        tree["model"]["vocab"] = dict(list(words.items())[:4])
    changed = draw(with_mistakes(tree, most=2, values=odd_fields))
    return family, name, written(changed).encode("utf-8", "surrogatepass")


def campaign(checkpoints, folder, examples):
    place = folder / "changed"

    def attempt(change):
        family, name, content = change
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(checkpoints[family], place)
        (place / name).write_bytes(content)
        return tried(place)

    return try_many(changes(checkpoints), attempt, examples)


@pytest.mark.parametrize("examples", [80, pytest.param(5000, marks=pytest.mark.long)])
def test_no_checkpoint_ends_in_a_traceback(examples, checkpoints, tmp_path):
    trials = campaign(checkpoints, tmp_path, examples)
    assert not trials.problems, trials.report()
