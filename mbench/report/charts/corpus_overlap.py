"""Overlap of the experts that calibration texts choose, by layer."""

from __future__ import annotations

from mbench.report.charts import style
from mbench.report.charts.drawing import draw, note
from mbench.report.charts.style import Chart
from mbench.report.statistics.corpus_choices import CorpusChoices
from mbench.report.words import pruned


def corpus_overlap_by_layer(choices: CorpusChoices) -> tuple[Chart, ...]:
    """A chart for every budget, with pairs of texts by colour and shape."""
    return tuple(
        _chart(choices, retain, f"{choices.id}-{number}")
        for number, retain in enumerate(choices.chosen, 1)
    )


def _chart(choices: CorpusChoices, retain: float, id: str) -> Chart:
    looks = style.looks([" and ".join(pair) for pair in choices.pairs], reserved="")
    rows, texts = [], []
    for pair in choices.pairs:
        shares = choices.overlap_by_layer(retain, pair)
        if shares is None:
            continue
        name = " and ".join(pair)
        for layer, share in enumerate(shares.tolist(), 1):
            text = f"{name}, layer {layer}: {share:.2f}"
            rows.append({"layer": layer, "method": name, "value": share, "note": note(name, text)})
        texts.append(f"{name}: mean {shares.mean():.2f}, {shares.min():.2f} to {shares.max():.2f}.")
    x = style.figures([1, choices.layers(retain)], ticks=8)
    x |= {"field": "layer", "title": "MoE layer"}
    x["axis"] |= {"tickMinStep": 1, "format": "d"}
    y = style.figures([0.0, 1.0])
    value, colour = {**y, "field": "value"}, style.by_method(looks, "colour")
    chance = choices.chance(retain)
    line, label = style.level(chance, f"chance {chance:.2f}", y)
    shape = style.by_method(looks, "shape")
    return Chart(
        caption=f"Overlap by layer, {pruned(retain)}",
        drawing=draw(
            style.specification(
                [
                    line,
                    style.lines(rows, x=x, y=value, color=colour),
                    style.layer("point", "point", rows, x=x, y=value, color=colour, shape=shape),
                    label,
                ]
            ),
            id,
            f"Jaccard overlap of the texts' choices, {choices.boards.group.model},"
            f" {pruned(retain)}",
            " ".join(texts) + f" Chance {chance:.2f}.",
        ),
        looks=looks,
    )
