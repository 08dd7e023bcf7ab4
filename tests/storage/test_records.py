"""What a run records can be read back from JSON, whatever its values."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import records
from helpers.demo_results import synthetic
from helpers.synthetic import paper_sized
from mbench.core.provenance import Provenance
from mbench.core.run_record import CorpusProfile
from mbench.storage.records import from_plain, to_plain
from mbench.storage.results_folder import read, write

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=3,
)
LEAVES = {
    object: PLAIN,
    str: st.text(max_size=8),
    int: st.integers(),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
}


def values(kind):
    """Small values of a type of the records."""
    arguments = typing.get_args(kind)
    if kind in LEAVES:
        return LEAVES[kind]
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        names = (field.name for field in dataclasses.fields(kind))
        return st.builds(kind, **{name: values(hints[name]) for name in names})
    if typing.get_origin(kind) is tuple:
        return st.lists(values(arguments[0]), max_size=2).map(tuple)
    if typing.get_origin(kind) is Mapping:
        return st.dictionaries(LEAVES[str], values(arguments[1]), max_size=2)
    if typing.get_origin(kind) is typing.Literal:
        return st.sampled_from(arguments)
    other, none = arguments
    assert none is types.NoneType
    return st.none() | values(other)


@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.data_too_large, HealthCheck.too_slow],
)
@given(values(Provenance))
def test_every_record_survives_json(provenance):
    stored = json.loads(json.dumps(to_plain(provenance), allow_nan=False))
    assert from_plain(Provenance, stored) == provenance


@pytest.mark.parametrize("results", [synthetic(), paper_sized(items=8)], ids=["demo", "paper"])
def test_records_survive_a_results_folder(tmp_path, results):
    write(results, tmp_path)
    assert read(tmp_path).provenance == results.provenance


def test_what_json_lacks_is_written_as_plain_values_and_text():
    odd = records.component("odd", a=np.int64(3), b=np.array([1.0, math.inf]), c={"d": (1, None)})
    assert to_plain(odd)["parameters"] == {"a": 3, "b": [1.0, "inf"], "c": {"d": [1, None]}}
    mass = CorpusProfile(tokens=1, gate_mass=(math.nan, 0.5, -math.inf))
    found = from_plain(CorpusProfile, json.loads(json.dumps(to_plain(mass), allow_nan=False)))
    assert math.isnan(found.gate_mass[0])
    assert found.gate_mass[1:] == (0.5, -math.inf)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": None}, r"ModelRecord.dtype must be str, not None"),
        ({"trust_remote_code": 1}, r"ModelRecord.trust_remote_code must be bool, not 1"),
        ({"source": {"kind": "ftp", "name": "x"}}, r"ModelRecord.source.kind must be .*'ftp'"),
        ({"source": "hub"}, r"ModelRecord.source must be an object, not 'hub'"),
        ({"more": 1}, r"ModelRecord has an unknown field 'more'"),
        ({"facts": {}}, r"ModelRecord.facts lacks 'architecture'"),
    ],
)
def test_a_wrong_value_is_named_by_its_place(change, message):
    model = records.model()
    with pytest.raises(ValueError, match=message):
        from_plain(type(model), to_plain(model) | change)


def test_a_bool_is_no_number():
    for field in ("tokens", "never_selected"):
        stored = to_plain(CorpusProfile(tokens=1, never_selected=0)) | {field: True}
        with pytest.raises(ValueError, match=f"CorpusProfile.{field} must be int, not True"):
            from_plain(CorpusProfile, stored)
    stored = to_plain(dataclasses.replace(CorpusProfile(1), gate_mass=(0.5,))) | {
        "gate_mass": [True]
    }
    with pytest.raises(ValueError, match=r"CorpusProfile.gate_mass\[0\] must be float, not True"):
        from_plain(CorpusProfile, stored)
