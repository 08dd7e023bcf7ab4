"""The heat map of a method's scores in a real browser: colours by rank, each score in words."""

from __future__ import annotations

import numpy as np

from helpers.browsing import accessibility, artefacts, overflow, visit
from mbench.report.page.scores_page import ScoreMap, write_scores_page

VALUES = np.array([[0.5, 3.0, -1.0, 3.0], [7.0, 7.0, 7.0, 1e-9]])
PIXELS = """() => { const c = document.querySelector("canvas");
  return [...c.getContext("2d").getImageData(0, 0, c.width, c.height).data]; }"""


def test_a_cell_has_the_colour_of_its_rank_and_tells_its_score(browser, tmp_path):
    write_scores_page("mine <b>", [ScoreMap("on wiki & code", VALUES)], tmp_path / "page.html")
    with visit(browser, tmp_path / "page.html") as tab:
        pixels = np.array(tab.evaluate(PIXELS)).reshape(2, 4, 4)
        blue = pixels[..., 2].astype(int) - pixels[..., 0]
        # From best to worst; equal scores by lower number, as the mask is made.
        for row, order in zip(blue, ([1, 3, 0, 2], [0, 1, 2, 3]), strict=True):
            assert np.argsort(-row, kind="stable").tolist() == order
        box = tab.locator("canvas").bounding_box()
        tab.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.2)
        assert tab.locator(".readout").inner_text() == "layer 0, expert 2: -1, rank 4 of 4"
        assert tab.locator("h1").inner_text() == "mine <b>"
        assert overflow(tab) <= 0
        assert accessibility(tab) == []


def test_layers_and_experts_are_numbered_where_they_stand(browser, tmp_path):
    values = np.random.default_rng(0).normal(size=(40, 128))
    write_scores_page("many", [ScoreMap("on wiki", values)], tmp_path / "page.html")
    for width, every in ((1280, 5), (390, 20)):
        with visit(browser, tmp_path / "page.html", width) as tab:
            box = tab.locator("canvas").bounding_box()
            for name, start, size, count, step in (
                ("layers", box["y"], box["height"], 40, 1),
                ("experts", box["x"], box["width"], 128, every),
            ):
                labels = tab.locator(f".{name} span").all()
                assert [int(own.inner_text()) for own in labels] == list(range(0, count, step))
                for own in labels:
                    at = own.bounding_box()
                    x, y = at["x"] + at["width"] / 2, at["y"] + at["height"] / 2
                    place = (x if name == "experts" else y) - start
                    assert int(place / size * count) == int(own.inner_text())
            tab.screenshot(path=artefacts() / f"scores-{width}.png")
            assert overflow(tab) <= 0
