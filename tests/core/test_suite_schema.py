"""The JSON Schema accepts suites that mbench accepts, and refuses mistakes that a key shows."""

from __future__ import annotations

import copy

import jsonschema
import pytest
import yaml

from helpers.command import call
from helpers.places import ROOT
from helpers.tiny_suite import SUITE
from mbench.core.errors import SuiteError
from mbench.core.suite_schema import suite_schema
from mbench.plan.suite_file import load_suite, validated
from mbench.plan.yaml_source import YamlSource

VALIDATOR = jsonschema.Draft202012Validator(suite_schema())
CHANGES = {
    "unknown key": (("seed",), 1),
    "no name": (("name",), None),
    "name with a space": (("name",), "a b"),
    "text for a list": (("retain",), 0.5),
    "all kept": (("retain",), [1]),
    "no budget": (("retain",), []),
    "another router": (("router",), "sliceed"),
    "no seed": (("seeds",), 0),
    "seed below 0": (("seeds",), [-1]),
    "two sources": (("models", "demo", "hub"), "a/b"),
    "no source": (("models", "demo"), {"dtype": "float32"}),
    "another dtype": (("models", "demo", "dtype"), "int8"),
    "a key of a corpus": (("corpora", "wiki", "lenght"), 3),
    "no length": (("corpora", "wiki"), {"source": {"plugin": "wiki"}, "sequences": 3}),
    "two sources of a text": (("corpora", "wiki", "source", "hub"), "a/b"),
    "a name of a method": (("methods", "my method"), {}),
    "a key of a method": (("methods", "reap", "corpus"), ["wiki"]),
    "a number for a part": (("methods", "reap", "scorer"), 3),
    "no methods": (("methods",), {}),
    "no stride": (("perplexity", "ppl-wiki", "stride"), None),
    "a stride too many": (("perplexity", "ppl-wiki", "protocol"), "gptq"),
    "few-shot below 0": (("tasks", "cloze_bible", "num_fewshot"), -1),
    "text for a number": (("tasks", "cloze_bible", "limit"), "6"),
}


def changed(place, value):
    suite = copy.deepcopy(yaml.safe_load(SUITE))
    node = suite
    for key in place[:-1]:
        node = node[key]
    if value is None:
        del node[place[-1]]
    else:
        node[place[-1]] = value
    return suite


@pytest.mark.parametrize("path", sorted((ROOT / "suites").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_suites_that_come_with_mbench_are_valid(path):
    load_suite(path)
    VALIDATOR.validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("seeds",), 20),
        (("methods", "mine"), {"scorer": "reap", "selector": {"name": "top-k"}, "seeds": 3}),
        (("methods", "reap@wiki"), None),
        (("corpora", "both"), {"mix": {"wiki": 2, "bible": 1}, "sequences": 4}),
        (("perplexity", "ppl-wiki"), {"source": {"files": ["a.txt"]}, "protocol": "gptq"}),
    ],
)
def test_other_forms_of_values_are_valid(place, value):
    suite = copy.deepcopy(yaml.safe_load(SUITE))
    node = suite[place[0]] if len(place) > 1 else suite
    node[place[-1]] = value
    validated(YamlSource.given(suite))
    VALIDATOR.validate(suite)


@pytest.mark.parametrize("change", CHANGES)
def test_what_mbench_refuses_is_invalid(change):
    suite = changed(*CHANGES[change])
    with pytest.raises(SuiteError):
        validated(YamlSource.given(suite))
    assert not VALIDATOR.is_valid(suite)


def test_the_verb_prints_it_and_it_is_a_schema_with_words(tmp_path):
    done = call("schema", store=tmp_path)
    schema = yaml.safe_load(done.stdout)
    assert schema == suite_schema()
    VALIDATOR.check_schema(schema)
    assert "floor(ratio x experts)" in schema["properties"]["retain"]["description"]
