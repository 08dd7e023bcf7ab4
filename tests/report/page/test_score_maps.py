"""Score maps: every kept expert and every figure is that of the results."""

import base64
import dataclasses
import json
import re

import numpy as np
import pytest

from helpers.browsing import accessibility, artefacts, foreign, overflow, visit
from helpers.odd_masks import with_odd_masks
from helpers.pages import html_of, paper_boards, render_page
from helpers.synthetic import PAPER_MODELS, paper_sized
from mbench.report.page.score_maps import maps_script

LAYERS, EXPERTS, _ = PAPER_MODELS["qwen"]
WHOLE = """canvas => {
  const found = [];
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const scale = Math.max(1, Math.round(devicePixelRatio)), right = canvas.dataset.right ? 50 : 0;
  const width = (canvas.width - (28 + right) * scale) / EXPERTS;
  const height = (canvas.height - 18 * scale) / LAYERS;
  for (let layer = 0; layer < LAYERS; layer++) for (let expert = 0; expert < EXPERTS; expert++) {
    const x = Math.floor(28 * scale + (expert + 0.3) * width), y = layer * height + 1;
    found.push(data[4 * (y * canvas.width + x) + 3] > 0);
  }
  return found;
}""".replace("LAYERS", str(LAYERS)).replace("EXPERTS", str(EXPERTS))
"""Whether each cell is drawn to its upper edge, which only those of kept experts are."""


def cell_of(method, seed=None, retain=0.5, model="qwen"):
    found = {c.key: c for c in paper_sized(items=25).cells}
    return next(
        c for key, c in found.items()
        if (key.model, key.method, key.seed, key.retain) == (model, method, seed, retain)
    )  # fmt: skip


def keep_of(*place):
    return paper_sized(items=25).masks["qwen", cell_of(*place).mask]


def test_the_data_are_the_masks_and_scores_of_the_results_each_once():
    results = paper_sized(items=25)
    text = maps_script(paper_boards())
    data = json.loads(text.removeprefix("scoreMaps(").removesuffix(");\n"))
    compared = 0
    for model in data["models"]:
        shape = (len(model["layers"]), model["experts"])
        for method, by_corpus in model["scores"].items():
            for corpus, number in by_corpus.items():
                values = np.frombuffer(base64.b64decode(data["scores"][number]), "<f8")
                expected = results.scores[model["name"], method, corpus]
                assert (values.reshape(shape) == expected).all()
                compared += 1
        for budget in model["budgets"]:
            for own in budget["masks"]:
                seed = re.search(r", seed (\d+)$", own["label"])
                cell = cell_of(
                    own["method"], int(seed[1]) if seed else None, budget["retain"], model["name"]
                )
                bits = np.frombuffer(base64.b64decode(data["masks"][own["mask"]]), np.uint8)
                keep = np.unpackbits(bits)[: np.prod(shape)].reshape(shape).astype(bool)
                assert (keep == results.masks[model["name"], cell.mask]).all()
                assert own["marks"] == []
                assert own["into"] is None
                compared += 1
    assert compared == len(results.scores) + sum(cell.method != "none" for cell in results.cells)
    assert len(set(data["scores"])) == len(data["scores"]) < len(results.scores)
    assert len(set(data["masks"])) == len(data["masks"])


def test_results_without_scores_say_so_and_without_masks_have_no_maps():
    results = paper_sized(items=25)
    said = "These results hold no scores"
    one = [c for c in results.cells if c.model == "qwen" and c.retain in (0.5, 1.0)]
    short = dataclasses.replace(results, cells=tuple(one))
    assert said not in html_of(short)
    assert said in html_of(dataclasses.replace(short, scores={}))
    assert 'id="score-maps"' not in html_of(dataclasses.replace(short, masks={}))


@pytest.fixture
def maps(browser, written):
    with visit(browser, written.resolve()) as tab:
        assert not any("masks_and_scores" in url for url in tab.requests)
        tab.get_by_role("link", name="Score maps", exact=True).first.click()
        tab.wait_for_selector("#score-maps canvas")
        yield tab
        assert tab.problems == []
        assert foreign(tab) == []


def choose(tab, **values):
    for name, value in values.items():
        tab.locator(f"[data-choice={name.replace('_', '-')}] select").select_option(value)


def readout(tab):
    return tab.locator("#score-maps .readout").inner_text()


def test_kept_marks_figures_and_overlap_follow_the_selectors(maps):
    results = paper_sized(items=25)
    choose(maps, model="qwen", kept="0.5", left="tb-coverage", left_text="c4")
    choose(maps, right="random, seed 42", order="number")
    left, right = keep_of("tb-coverage"), keep_of("random", 42)
    canvases = maps.locator("#score-maps canvas")
    canvases.nth(1).evaluate("canvas => { canvas.dataset.right = 1; }")
    drawn = [np.reshape(c.evaluate(WHOLE), left.shape) for c in canvases.all()]
    assert (drawn[0] == left).all()
    assert (drawn[1] == right).all()
    shared = maps.locator("#score-maps .shared").inner_text()
    both, kept = int((left & right).sum()), int(left.sum())
    assert shared.startswith(f"Both keep {both} of {kept} ({100 * both / kept:.0f} %;")
    assert f"{kept - both} are kept by tb-coverage alone" in shared
    assert f"Least shared: {(left & right).sum(axis=1).min()} of {kept // LAYERS}" in shared

    scores = results.scores["qwen", "tb-coverage", "c4"]
    canvases.first.focus()
    for layer in range(3):
        for expert in range(4):
            value = scores[layer, expert]
            rank = 1 + (scores[layer] > value).sum()
            told = readout(maps).splitlines()
            assert told[0] == f"Layer {layer}, expert {expert} (model.layers.{layer}.mlp.experts)"
            words = {True: "kept", False: "pruned"}
            assert told[1].startswith(
                f"tb-coverage: {words[bool(left[layer, expert])]}; score {value:.4g}"
            )
            assert f"rank {rank} of {EXPERTS}" in told[1]
            assert told[2] == f"random, seed 42: {words[bool(right[layer, expert])]}"
            maps.keyboard.press("ArrowRight")
        for _ in range(4):
            maps.keyboard.press("ArrowLeft")
        maps.keyboard.press("ArrowDown")


def test_experts_in_order_of_rank_and_choices_in_the_address(maps, browser):
    choose(maps, model="qwen", kept="0.25", left="reap-c4", right="mean", right_text="wikitext2")
    choose(maps, colour="score")
    scores = paper_sized(items=25).scores["qwen", "reap-c4", "c4"]
    canvas = maps.locator("#score-maps canvas").first
    box = canvas.bounding_box()
    width, height = (box["width"] - 28) / EXPERTS, (box["height"] - 18) / LAYERS
    for layer, position in ((0, 0), (5, 17), (LAYERS - 1, EXPERTS - 1)):
        expert = np.argsort(-scores[layer])[position]
        place = {"x": 28 + (position + 0.5) * width, "y": (layer + 0.5) * height}
        canvas.hover(position=place)
        assert readout(maps).startswith(f"Layer {layer}, expert {expert} ")
    told = readout(maps)
    with visit(browser, maps.url) as other:
        other.wait_for_selector("#score-maps canvas")
        chosen = other.locator("#score-maps select").evaluate_all("all => all.map(s => s.value)")
        assert chosen == maps.locator("#score-maps select").evaluate_all(
            "all => all.map(s => s.value)"
        )
    assert "rank 60 of 60" in told


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1280, "dark")])
def test_maps_fit_and_are_accessible(browser, written, width, scheme):
    with visit(browser, f"{written.as_uri()}#maps", width, scheme) as tab:
        tab.wait_for_selector("#score-maps canvas")
        tab.screenshot(path=artefacts() / f"score-maps-{width}-{scheme}.png", full_page=True)
        assert overflow(tab) <= 0
        tops = [c.bounding_box()["y"] for c in tab.locator("#score-maps canvas").all()]
        assert (tops[0] == tops[1]) == (width > 760)
        tab.evaluate("document.querySelectorAll('main > :not(#maps)').forEach(x => x.remove())")
        others = "#maps > :not(:first-child, :nth-child(2))"
        tab.evaluate("all => document.querySelectorAll(all).forEach(x => x.remove())", others)
        assert accessibility(tab) == []


def test_a_missing_file_is_named(browser, tmp_path):
    one = [c for c in paper_sized(items=25).cells if c.model == "qwen" and c.retain in (0.5, 1.0)]
    page = render_page(dataclasses.replace(paper_sized(items=25), cells=tuple(one)), tmp_path)
    (tmp_path / "masks_and_scores.js").unlink()
    with visit(browser, f"{page.as_uri()}#maps") as tab:
        tab.wait_for_function(
            "document.querySelector('#score-maps .told').textContent.includes('need')"
        )
        assert (
            "masks_and_scores.js beside this page" in tab.locator("#score-maps .told").inner_text()
        )


def test_maps_of_uneven_and_merged_masks(browser, tmp_path):
    results = with_odd_masks(paper_sized(items=25), "reap-c4", "max", "mean")
    page = render_page(results, tmp_path / "odd")
    keeps = {
        cell.method: results.masks["qwen", cell.mask]
        for cell in results.cells
        if (cell.model, cell.retain) == ("qwen", 0.5) and cell.method in ("reap-c4", "mean")
    }
    with visit(browser, page.as_uri() + "#maps") as tab:
        tab.wait_for_selector("#score-maps canvas")
        choose(tab, model="qwen", kept="0.5", left="reap-c4", right="mean", order="number")
        canvases = tab.locator("#score-maps canvas")
        canvases.nth(1).evaluate("canvas => { canvas.dataset.right = 1; }")
        for canvas, keep in zip(canvases.all(), keeps.values(), strict=True):
            assert (np.reshape(canvas.evaluate(WHOLE), keep.shape) == keep).all()
        captions = tab.locator("#score-maps figcaption").all_inner_texts()
        assert "29–31 kept a layer" in captions[0]
        assert "merged, 88 % stay on redrawn text" in captions[1]
        left, right = keeps.values()
        both = int((left & right).sum())
        shared = tab.locator("#score-maps .shared").inner_text()
        assert shared.startswith(f"Both keep {both} of {left.sum()} ")
        # The cut is that of the layer: the first keeps 31.
        canvases.first.focus()
        scores = results.scores["qwen", "reap-c4", "c4"][0]
        best = -np.sort(-scores)
        margin = scores[0] - (best[30] + best[31]) / 2
        side = "below" if margin < 0 else "above"
        assert f"{abs(margin):.4g} {side} the cut" in readout(tab).splitlines()[1]
        pruned = int(np.flatnonzero(~right[0])[0])
        for _ in range(pruned):
            tab.keyboard.press("ArrowRight")
        assert f"mean: pruned, merged into expert {right[0].argmax()};" in readout(tab)
        choose(tab, right="max")
        canvases.first.focus()
        assert "max: pruned, a constant in its place" in readout(tab)
        assert tab.problems == []
