"""The page says all that the records say, whether of one run or of several."""

from __future__ import annotations

import dataclasses
import html
import shlex

import pytest

from helpers import records
from helpers.pages import html_of
from helpers.small_runs import grid, run
from mbench.core.run_record import Checkout, CorpusProfile, Hardware, PluginComponent, RunCost
from mbench.report.across_runs.merge import merge
from mbench.report.page.provenance import commands, commit, rows
from mbench.storage.records import to_plain


def full():
    """A run in which no part of the record is empty."""
    results = run(grid())
    one = records.run_record(
        description="What for.",
        changes=("--retain", "0.5"),
        suite_checkout=Checkout("12" * 20, changed=True),
        hardware=Hardware("arm64", "Darwin 25", 11, ("GPU of a kind", "another")),
        plugins=(PluginComponent("scorer", "alpha", "odd.py", "9" * 64, {"scipy": "1.16.9"}),),
        profiles={"m": {"wiki": CorpusProfile(524_288, 3, (0.25, 0.125))}},
        cost=RunCost(
            forward_tokens=911_228,
            seconds={"profile": 812.5},
            peak_memory={"GPU 0": 36_507_222_016},
            scoring={"m": {"quiz": "packed"}},
            interrupted=True,
        ),
    )
    methods = {"m": {**results.provenance.methods["m"], "gamma": records.method(candidate="alpha")}}
    provenance = dataclasses.replace(
        results.provenance,
        runs=(one,),
        methods=methods,
        models={"m": records.model(revision="34" * 20, trust_remote_code=True)},
    )
    return dataclasses.replace(results, description=one.description, provenance=provenance)


def halves():
    """One that is merged from two runs."""
    return merge({name: run(grid(models=(name,)), name=f"half-{name}") for name in ("m", "n")})


def leaves(value):
    """All texts and numbers in nested plain values."""
    if isinstance(value, dict):
        for entry in value.values():
            yield from leaves(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from leaves(entry)
    elif value is not None and not isinstance(value, bool):
        yield f"{value:.6g}" if isinstance(value, float) else str(value)


def keys(value):
    """Names in mappings, which a record's own fields are not."""
    for record in value.runs:
        yield from record.versions
        yield from record.code
        yield from (name for one in record.profiles.values() for name in one)
    yield from (name for methods in value.methods.values() for name in methods)


@pytest.mark.parametrize("results", [full(), halves()], ids=["one", "merged"])
def test_every_recorded_value_is_on_the_page(results):
    page = html.unescape(html_of(results))
    provenance = results.provenance
    shown = [text for text in leaves(to_plain(provenance)) if text.strip()]
    assert len(shown) > 50
    section = page[page.index('<section id="provenance">') :]
    # A single run's title and description head the page.
    heading = {provenance.runs[0].title, provenance.runs[0].description}
    missing = {text for text in {*shown, *keys(provenance)} - heading if text not in section}
    assert missing == set()
    assert all(text in page for text in heading)


def test_rows_tell_one_run_from_another():
    assert {
        "suite file sha256": "cd" * 32,
        "hardware › gpus": "GPU of a kind, another",
        "git › of the suite": "12" * 20 + " with uncommitted changes",
        "profiles › m › wiki › experts never selected": "3",
        "models › m › stored in": "bfloat16",
        "models › m › computed in": "float32",
        "methods › m › beta › scorer": "beta (power 2)",
        "methods › m › gamma › candidate": "alpha",
    }.items() <= dict(rows(full().provenance)).items()
    assert {
        "run 1 › suite": "half-m",
        "run 2 › suite": "half-n",
        "methods › n › beta › scorer": "beta (power 2)",
    }.items() <= dict(rows(halves().provenance)).items()


def test_a_command_is_written_as_a_shell_takes_it():
    results = full()
    (one,) = results.provenance.runs
    words = ("mbench", "run", "a b.yaml", "--set", "title='x'")
    provenance = dataclasses.replace(
        results.provenance, runs=(dataclasses.replace(one, command=words),)
    )
    assert tuple(shlex.split(commands(provenance))) == words
    again = dataclasses.replace(provenance, runs=provenance.runs * 2)
    assert commands(again) == commands(provenance)


@pytest.mark.parametrize(
    ("checkouts", "expected"),
    [
        ([Checkout("a" * 40)], "a" * 40),
        ([Checkout("a" * 40)] * 2, "a" * 40),
        ([Checkout("a" * 40, changed=True)], ""),
        ([Checkout(None)], ""),
        ([Checkout("a" * 40), Checkout("b" * 40)], ""),
    ],
)
def test_a_commit_is_named_where_it_gives_the_page_again(checkouts, expected):
    runs = tuple(records.run_record(mbench_checkout=one) for one in checkouts)
    provenance = dataclasses.replace(run(grid()).provenance, runs=runs)
    assert commit(provenance) == expected
