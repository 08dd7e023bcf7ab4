"""Sentences that readers must know beside the figures."""

from __future__ import annotations

from mbench.report.statistics.boards import Board, GroupBoards
from mbench.report.statistics.corpus_choices import CorpusChoices
from mbench.report.statistics.mask_overlap import equal_masks, shared_size, union_size
from mbench.report.words import listing, pruned


def budget_notes(board: Board) -> tuple[str, ...]:
    """Notes of the methods on this budget, and methods with equal masks."""
    notes = [
        f"{entry.method}: {note}"
        for entry in board.budget.entries
        for note in dict.fromkeys(note for cell in entry.cells for note in cell.notes)
    ]
    for names in equal_masks(board.budget):
        verb = "both keep" if len(names) == 2 else "all keep"
        notes.append(
            f"{listing(names)} {verb} exactly the same experts: the mask was evaluated once, so "
            "their figures are a single measurement."
        )
    return tuple(notes)


def never_selected(boards: GroupBoards) -> tuple[str, ...]:
    """Corpora on which the router selected some experts for no token."""
    notes = []
    profiles = boards.results.provenance.profiles_of(boards.group.model)
    for corpus, profile in profiles.items():
        if profile.never_selected:
            count = profile.never_selected
            experts = "1 expert was" if count == 1 else f"{count} experts were"
            notes.append(
                f"{experts} never selected by the router on {corpus}, counted over all layers: "
                "a mean over the expert's tokens does not exist there."
            )
    return tuple(notes)


def union_of_choices(choices: CorpusChoices) -> tuple[str, ...]:
    """By budget, how many experts the choices of the texts share and how many any of them has."""
    notes = []
    for retain, by_corpus in choices.chosen.items():
        masks = list(by_corpus.values())
        notes.append(
            f"{pruned(retain)}: of {choices.kept(retain):.4g} experts per layer, the choices by"
            f" {listing(by_corpus)} have {shared_size(masks):.1f} in common; their union has"
            f" {union_size(masks):.1f}."
        )
    return tuple(notes)
