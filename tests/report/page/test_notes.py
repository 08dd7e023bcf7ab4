"""Sentences beside the figures."""

from helpers.demo_results import synthetic
from helpers.pages import paper_boards
from mbench.report.page.notes import budget_notes, never_selected
from mbench.report.statistics.boards import boards


def test_notes_tell_of_clamped_budgets_and_coinciding_masks():
    notes = budget_notes(boards(synthetic()).groups[0].boards[-1])
    assert notes[0] == "tb-coverage: protection budget clamped from 12 to 8"
    assert notes[1].startswith("max and max-protected both keep exactly the same experts")


def test_experts_never_selected_are_named():
    (sentence,) = never_selected(paper_boards().groups[1])
    assert sentence.startswith("3 experts were never selected by the router on evol-codealpaca")
