"""How far a single seed can mislead: every seed beside the methods that have none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mbench.report import charts
from mbench.report.arrange import Group, Score
from mbench.report.ranking import Standing
from mbench.report.words import percent

OTHER = "best method without seeds"


def seed_chart(
    group: Group, score: Score, standings: dict[float, Sequence[Standing]], id: str
) -> charts.Chart | None:
    """Every seed of each seeded method, and the best of the other methods, at every budget."""
    complete = {
        retain: [standing for standing in ranked if standing.rank is not None]
        for retain, ranked in standings.items()
    }
    several = {s.entry.method for ranked in complete.values() for s in ranked if _several(s)}
    if not several:
        return None
    retains = [setting.retain for setting in group.settings]
    centres, width = charts.columns(retains)
    values = [score.value(c) for ranked in complete.values() for s in ranked for c in s.entry.cells]
    to_y = charts.Scale.over([value for value in values if value is not None])
    styles = charts.looks([OTHER, *sorted(several)], reserved="")
    series = []
    for name, look in styles.items():
        marks: list[charts.Mark] = []
        for retain in retains:
            if name in several:
                found = [s for s in complete[retain] if s.entry.method == name]
                cells = [cell for standing in found for cell in standing.entry.cells]
            else:
                others = [s for s in complete[retain] if not _several(s)]
                cells = list(others[0].entry.cells) if others else []
            for index, cell in enumerate(cells):
                shift = (index + 0.5) / len(cells) - 0.5
                y = to_y(score.value(cell))
                seed = "" if cell.seed is None else f", seed {cell.seed}"
                title = f"{cell.method}{seed}, {percent(retain)} kept: {score.value(cell):.3f}"
                marks.append(charts.Mark(round(centres[retain] + shift * width, 1), y, y, y, title))
        series.append(charts.Series(name, look, tuple(marks), ""))
    bands = []
    for retain in retains:
        for standing in filter(_several, complete[retain]):
            s = standing.summary
            left, right = centres[retain] - width / 2, centres[retain] + width / 2
            high, low = to_y(s.mean + s.std), to_y(s.mean - s.std)
            bands.append(charts.Band(round(left, 1), round(right, 1), high, low, to_y(s.mean)))
    return charts.Chart(
        id=id,
        caption=f"Every seed: {score.name}, {'higher' if score.higher else 'lower'} is better",
        title=f"{score.name} of every seed, {group.model}, router {group.router}",
        description=" ".join(alone(score, standings)),
        x_label="experts kept",
        x_ticks=tuple((centres[retain], percent(retain)) for retain in retains),
        y_ticks=to_y.ticks(),
        series=tuple(series),
        bands=tuple(bands),
        band_title="mean ± standard deviation over the seeds",
    )


def _several(standing: Standing) -> bool:
    return len(standing.entry.cells) > 1


def alone(score: Score, standings: dict[float, Sequence[Standing]]) -> Iterator[str]:
    """A sentence per budget: where each seed would stand if it were the only one."""
    for retain, ranked in standings.items():
        complete = [standing for standing in ranked if standing.rank is not None]
        for standing in filter(_several, complete):
            others = [s.summary.mean for s in complete if s is not standing]
            if not others:
                continue
            sign = 1 if score.higher else -1
            places: dict[int, list[str]] = {}
            for cell in standing.entry.cells:
                value = sign * score.value(cell)
                place = 1 + sum(sign * other > value for other in others)
                places.setdefault(place, []).append(str(cell.seed))
            texts = [
                f"{place} (seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)})"
                for place, seeds in sorted(places.items())
            ]
            yield (
                f"{percent(retain)} kept: by one seed alone, {standing.entry.method} would stand at"
                f" place {' or '.join(texts)} of {len(others) + 1}."
            )
