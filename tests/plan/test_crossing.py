"""Methods crossed with calibration corpora: their names, their keys, and what is refused."""

from __future__ import annotations

import json

import pytest

from helpers.tiny_suite import SUITE, plan_of
from mbench.core.errors import MbenchError
from mbench.plan.lock import lock_of
from mbench.plan.suite_file import load_suite

CROSSED = SUITE.replace("calibration:", "  both: {mix: {bible: 4, wiki: 8}}\ncalibration:").replace(
    "perplexity:", "cross: {methods: [reap, tb-coverage, mean], corpora: [wiki, both]}\nperplexity:"
)


def masks(plan) -> dict[str, str]:
    """Cell -> digest of the key of its mask."""
    return {cell.label: cell.mask_key.digest for cell in plan.cells if cell.mask_key}


def test_a_cross_is_its_methods_on_each_corpus(tmp_path, store):
    plan = plan_of(tmp_path, store, CROSSED)
    crossed = [
        cell.method for cell in plan.cells if "@" in cell.method.name and cell.budget.retain == 0.5
    ]
    assert {(method.name, method.corpora) for method in crossed} == {
        *(
            (f"{method}@{corpus}", (corpus,))
            for method in ("reap", "tb-coverage", "mean", "expert-sparsity")
            for corpus in ("wiki", "both")
        )
    }
    for method in crossed:
        # What it builds upon is on the same corpus, and only its mask is needed.
        on = method.name.partition("@")[2]
        assert method.candidate in (None, f"expert-sparsity@{on}")
        assert method.evaluated == (not method.name.startswith("expert-sparsity"))
    # The parts that the suite gives a method are those of its crossed ones.
    selectors = {method.name: method.selector.params for method in crossed}
    assert selectors["tb-coverage@both"].protected == 10


def test_a_crossed_method_has_the_keys_of_one_that_is_written_out(tmp_path, store):
    written = CROSSED.replace("methods: [reap, tb-coverage, mean]", "methods: [mean]").replace(
        "methods:\n",
        "methods:\n  a: {use: reap, corpora: [wiki]}\n"
        "  b: {use: tb-coverage, selector: {protected: 10}, corpora: [both], candidate: c}\n"
        "  c: {use: expert-sparsity, corpora: [both]}\n",
        1,
    )
    ours, theirs = (
        masks(plan_of(tmp_path, store, CROSSED)),
        masks(plan_of(tmp_path, store, written)),
    )
    for name, other in (
        ("reap@wiki", "a"),
        ("tb-coverage@both", "b"),
        ("expert-sparsity@both", "c"),
    ):
        assert ours[f"demo 50 % pruned, {name}"] == theirs[f"demo 50 % pruned, {other}"]


def test_a_crossed_method_is_chosen_by_its_name(tmp_path, store):
    plan = plan_of(tmp_path, store, CROSSED, methods=["reap@both", "random"])
    assert {cell.method.name for cell in plan.cells} == {"reap@both", "random"}
    # Also where nothing is crossed.
    alone = plan_of(tmp_path, store, SUITE, methods=["tb-coverage@wiki"])
    chosen = {cell.method.name: cell.method for cell in alone.cells}
    assert chosen.keys() == {"tb-coverage@wiki", "expert-sparsity@wiki"}
    assert chosen["tb-coverage@wiki"].selector.params.protected == 10


def test_a_lock_of_a_cross_gives_the_same_plan(tmp_path, store):
    path = tmp_path / "suite.yaml"
    path.write_text(CROSSED)
    _, source = load_suite(path)
    plan = plan_of(tmp_path, store, CROSSED)
    again = plan_of(tmp_path, store, json.dumps(lock_of(plan, source.plain()).suite))
    assert masks(again) == masks(plan)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("corpora: [wiki, both]}", "corpora: [wiki, bth]}", ":17:61: unknown corpus 'bth'; did"),
        ("corpora: [wiki, both]}", "corpora: [wiki, wiki]}", ":17:61: 'wiki' is listed twice"),
        ("[reap, tb-coverage, mean]", "[reap, meen]", ":17:25: unknown method 'meen'; did you"),
        ("[reap, tb-coverage, mean]", "[random]", ":17:19: 'random@wiki' looks at no text"),
        ("[reap, tb-coverage, mean]", "[]", "cross.methods: give at least one"),
        ("[reap, tb-coverage, mean]", "[reap@wiki]", "cross.methods.0: string should match"),
        ("corpora: [wiki, both]}", "copora: [wiki]}", "unknown key 'copora'; did you mean"),
        ("  random:\n", "  reap@wikki:\n", ":12:3: unknown corpus 'wikki'; did you mean"),
        ("  random:\n", "  reap@wiki: {corpora: [wiki]}\n", ":12:15: 'reap@wiki' is calibrated"),
        ("  random:\n", "  reap@: {}\n", "string should match pattern"),
    ],
)
def test_a_wrong_cross_is_refused_at_its_line(tmp_path, store, old, new, message):
    with pytest.raises(MbenchError) as caught:
        plan_of(tmp_path, store, CROSSED.replace(old, new))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cross_may_be_all_there_is(tmp_path, store):
    text = CROSSED[: CROSSED.index("methods:\n")] + CROSSED[CROSSED.index("cross:") :]
    names = {
        cell.method.name for cell in plan_of(tmp_path, store, text).cells if cell.method.evaluated
    }
    assert names == {f"{m}@{c}" for m in ("reap", "tb-coverage", "mean") for c in ("wiki", "both")}
