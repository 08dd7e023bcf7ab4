"""Where a single seed would rank, by hand."""

import re

from helpers.pages import paper_boards
from mbench.report.statistics.single_seeds import places_of_single_seeds


def test_seeds_are_placed_as_if_each_were_alone():
    run = paper_boards()
    averages: dict[str, list[float]] = {}
    seeds = []
    for cell in run.results.cells:
        if cell.model == "qwen" and cell.retain == 0.25:
            averages.setdefault(cell.method, []).append(run.results.average_of(cell).value)
            seeds += [cell.seed] if cell.method == "random" else []
    random = averages.pop("random")
    sentence = places_of_single_seeds(run.groups[0])[0]
    for seed, value in zip(seeds, random, strict=True):
        place = 1 + sum(other > value for (other,) in averages.values())
        listed = re.search(rf"{place} \(seeds? ([\d, ]+)\)", sentence)[1]
        assert str(seed) in listed.split(", ")
