"""Wrong methods of many kinds: each is found by the check that its mistake belongs to."""

from __future__ import annotations

import re

import pytest

from helpers.impure_methods import IMPURE
from helpers.misled_methods import MISLED
from helpers.wrong_methods import (
    DONE,
    NEEDS,
    SUMS,
    TOP,
    builder,
    scorer,
    selector,
)
from helpers.wrong_results import WRONG_RESULTS
from mbench.testing import CHECKS, ConformanceError, check_method, conformance_tests

WRONG = {**WRONG_RESULTS, **IMPURE, **MISLED}


def failed(tmp_path, name, *checks):
    """What the kit says of a wrong method, one report a check."""
    file = tmp_path / f"{name.replace(' ', '_')}.py"
    file.write_text(WRONG[name].source)
    with pytest.raises(ConformanceError) as caught:
        check_method(file, "bad", checks)
    return str(caught.value).split("\n\n")


@pytest.mark.parametrize("name", WRONG)
def test_is_found_by_its_check(tmp_path, name):
    wrong = WRONG[name]
    (report,) = failed(tmp_path, name, wrong.check)
    assert report.startswith(f"method 'bad', check '{wrong.check}': ")
    assert wrong.message in report


@pytest.mark.long
@pytest.mark.parametrize("name", WRONG)
def test_is_found_by_no_other_check(tmp_path, name):
    (report,) = failed(tmp_path, name, *CHECKS)
    assert f"check '{WRONG[name].check}'" in report


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise RuntimeError('boom')", "raised RuntimeError: boom"),
        ("import mbench\n", "it implements no mbench hook"),
        (scorer(f"return {SUMS}['count']").replace("'bad'", "'reap'"), "is already registered"),
        (scorer(f"return {SUMS}['count']").replace("[Bad]", "Bad"), "must return a list"),
        (
            scorer(f"return {SUMS}['count']", f"{NEEDS}    class Params:\n        power = 2\n"),
            "must be a subclass of mbench.Parameters",
        ),
        (scorer(f"return {SUMS}['count']", corpora="1"), "its `corpora` is '1'; valid: None, or"),
        (
            builder("return mbench.ExpertMask(keep)", "    layers = 'uneven'\n"),
            "its `layers` is 'uneven'; valid: 'equal', 'any'",
        ),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_one_failing_test(tmp_path, source, message):
    file = tmp_path / "plugin.py"
    file.write_text(source)
    with pytest.raises(ConformanceError, match=re.escape(message)):
        conformance_tests(file)()


@pytest.mark.parametrize(
    "body",
    [
        f"return {SUMS}['count'] * 0",
        f"return torch.tensor({SUMS}['gate']).float()",
        f"print('seen')\nreturn {SUMS}['norm']",
    ],
)
def test_what_is_odd_and_harmless_passes(tmp_path, body):
    file = tmp_path / "plugin.py"
    file.write_text(scorer(body))
    check_method(file, "bad")


def test_planted_experts_that_are_not_kept_as_said(tmp_path):
    file = tmp_path / "plugin.py"
    file.write_text(scorer(f"return -{SUMS}['gate_norm']"))
    planted = {"bad": {"never": False}}
    with pytest.raises(ConformanceError, match="must drop the planted 'never'"):
        conformance_tests(file, planted=planted)("bad", "planted")
    with pytest.raises(ConformanceError, match="unknown kind of planted expert 'lowd'"):
        conformance_tests(file, planted={"bad": {"lowd": True}})("bad", "planted")
    with pytest.raises(ConformanceError, match="unknown method or check 'good'"):
        conformance_tests(file, skip={"good": {"ties": "none"}})


def test_scores_kept_by_what_they_follow_from_are_not_accused(tmp_path):
    kept = "key = profile.model, profile.revision, profile.corpus, profile.tokens\n"
    kept += f"return KEPT.setdefault(key, {SUMS}['count'])"
    file = tmp_path / "plugin.py"
    file.write_text(scorer(kept).replace("import mbench\n", "import mbench\nKEPT = {}\n", 1))
    check_method(file, "bad")


@pytest.mark.parametrize("corpora", [2, 5])
def test_methods_of_several_corpora_are_given_so_many(tmp_path, corpora):
    file = tmp_path / "plugin.py"
    mean = "values = np.mean([each.values for each in scores.values()], axis=0)\n"
    file.write_text(
        selector(f"assert len(scores) == {corpora}\n{mean}{TOP}{DONE}", corpora=corpora)
    )
    check_method(file, "bad")


def test_every_check_finds_one():
    assert {wrong.check for wrong in WRONG.values()} == set(CHECKS)
