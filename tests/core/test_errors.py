"""The one line that users read of an error, and what `--debug` adds to it."""

from __future__ import annotations

import pytest

from mbench.core.errors import SuiteError, caught, one_line, tracebacks_shown, unknown


def test_a_few_choices_are_listed_and_of_many_the_nearest_are_named():
    assert unknown("task", "wikki", ["wiki", "c4"]) == (
        "unknown task 'wikki'; did you mean 'wiki'? (valid: c4, wiki)"
    )
    assert unknown("corpus", "x", []) == "unknown corpus 'x' (valid: none)"
    many = [f"task_{number}" for number in range(1000)]
    line = unknown("task", "tsk_12", many)
    assert line.startswith("unknown task 'tsk_12'; did you mean 'task_")
    assert line.count("'task_") <= 4


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (SuiteError("first\nsecond"), "first"),
        (ValueError("\n first\nsecond"), "ValueError: first"),
        (KeyError(), "KeyError"),
        (OSError("x" * 1000), "OSError: " + "x" * 300),
    ],
)
def test_an_error_of_another_library_is_named_by_its_type_and_cut(error, line):
    assert one_line(error) == line


def test_tracebacks_of_caught_errors_are_shown_on_request_only(capsys):
    def fail():
        try:
            return 1 / 0
        except ZeroDivisionError as error:
            return caught(error)

    with tracebacks_shown():
        assert fail() == "ZeroDivisionError: division by zero"
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "return 1 / 0" in shown
    fail()
    assert capsys.readouterr().err == ""
