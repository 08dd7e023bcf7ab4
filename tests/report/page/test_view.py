"""What the page says beside the leaderboard, against sums done by hand or by brute force."""

import dataclasses
import itertools
import re

import numpy as np
import pytest

from helpers.places import PUBLISHED
from helpers.records import component, method
from helpers.synthetic import PAPER_MODELS, paper_sized
from mbench.core.errors import MbenchError
from mbench.report.charts import agreement
from mbench.report.page import view as figures
from mbench.report.page.render import render
from mbench.report.tables import experts
from mbench.report.tables.published import load_published


@pytest.fixture(scope="module")
def results():
    return paper_sized(items=25)


@pytest.fixture(scope="module")
def page(results):
    return figures.page(results, load_published(PUBLISHED))


def mask(*kept, experts=6):
    return np.array([[expert in layer for expert in range(experts)] for layer in kept])


def test_overlaps_by_brute_force():
    rng = np.random.default_rng(3)
    for _ in range(20):
        first, second = (
            [set(rng.permutation(9)[: rng.integers(1, 9)].tolist()) for _ in range(4)]
            for _ in range(2)
        )
        by_hand = [len(a & b) / len(a | b) for a, b in zip(first, second, strict=True)]
        masks = mask(*first, experts=9), mask(*second, experts=9)
        assert experts.jaccard_by_layer(*masks).tolist() == pytest.approx(by_hand)
        assert experts.jaccard(*masks) == pytest.approx(sum(by_hand) / 4)
        sizes = [len(a | b) for a, b in zip(first, second, strict=True)]
        assert agreement.union_size(masks) == pytest.approx(sum(sizes) / 4)


@pytest.mark.parametrize(("count", "kept"), [(5, 2), (6, 5), (4, 4), (7, 1)])
def test_chance_is_the_mean_over_all_pairs_of_sets(count, kept):
    sets = [set(chosen) for chosen in itertools.combinations(range(count), kept)]
    shares = [len(a & b) / len(a | b) for a in sets for b in sets]
    assert agreement.chance(count, kept) == pytest.approx(sum(shares) / len(shares))


def test_corpora_are_compared_between_methods_that_differ_in_nothing_else():
    methods = {
        "on-a": method("reap", corpora=("a",)),
        "on-b": method("reap", corpora=("b",)),
        "other": method("count", corpora=("c",)),
        "power": method(component("reap", power=2), corpora=("c",)),
        "both": method("reap", corpora=("a", "b")),
        "built-upon": method("reap", corpora=("d",), candidate="on-a"),
        "preserved": method("reap", corpora=("e",), router="preserved"),
        "random": method(None, selector="random", corpora=()),
    }
    assert agreement.families(methods) == [{"a": "on-a", "b": "on-b"}]


def test_agreement_of_corpora_follows_from_their_masks(results, page):
    (one, two, _) = page.groups[0].agreements  # reap on three texts, two simpler scores on two
    assert one.heading == "reap-evol-codealpaca, reap-c4 and reap-wikitext2"
    assert two.heading == "frequency-c4 and frequency-wikitext2"
    keep = {
        cell.method.removeprefix("reap-"): results.masks["qwen", cell.mask]
        for cell in results.cells
        if cell.model == "qwen" and cell.retain == 0.5 and cell.method.startswith("reap-")
    }
    row = next(r for r in one.table.rows if r.head.text == "c4 and wikitext2")
    expected = [
        len(a & b) / len(a | b)
        for a, b in zip(*([set(np.flatnonzero(r)) for r in keep[c]] for c in ("c4", "wikitext2")),
                        strict=True)
    ]  # fmt: skip
    assert row.cells[1].sort == pytest.approx(np.mean(expected))
    wanted = np.mean([[any(m[layer, e] for m in keep.values()) for e in range(60)]
                      for layer in range(24)]) * 60  # fmt: skip
    assert f"together want {wanted:.1f} experts per layer where 30 can stay" in one.sentences[1]


def test_experts_never_selected_are_named(page):
    (sentence,) = page.groups[1].never_selected
    assert sentence.startswith("3 experts were never selected by the router on evol-codealpaca")


def test_every_task_has_every_metric_and_marks_the_best(results, page):
    table = page.groups[0].budgets[1].metrics
    parts = [(column.task, column.metric, column.declared) for column in table.columns[1:]]
    assert ("arc_easy", "acc_norm", True) in parts
    assert ("arc_easy", "acc", False) in parts
    assert ("ppl-c4", "bits_per_byte", False) in parts
    column = parts.index(("arc_easy", "acc", False))
    cells = [c for c in results.cells if c.model == "qwen" and c.retain == 0.5]
    by_hand: dict[str, list[float]] = {}
    for cell in cells:
        by_hand.setdefault(cell.method, []).append(cell.evaluations["arc_easy"].items.acc.mean())
    shown = {row.head.text: row.cells[column] for row in table.rows[1:]}
    assert {m: c.sort for m, c in shown.items()} == {
        m: pytest.approx(np.mean(values)) for m, values in by_hand.items()
    }
    top = max(np.mean(values) for values in by_hand.values())
    best = {m for m, cell in shown.items() if cell.kind == "best"}
    assert best == {m for m, values in by_hand.items() if np.mean(values) == pytest.approx(top)}
    lowest = parts.index(("ppl-c4", "perplexity", True))
    values = [row.cells[lowest] for row in table.rows[1:]]
    assert min(values, key=lambda cell: cell.sort).kind == "best"
    failed = page.groups[1].budgets[2].metrics
    row = next(r for r in failed.rows if r.head.text == "expert-sparsity")
    assert row.cells[[c.task for c in failed.columns[1:]].index("mmlu")].sort is None


def test_seeds_are_placed_as_if_each_were_alone(results, page):
    averages: dict[str, list[float]] = {}
    seeds = []
    for cell in results.cells:
        if cell.model == "qwen" and cell.retain == 0.25:
            averages.setdefault(cell.method, []).append(results.average_of(cell).value)
            seeds += [cell.seed] if cell.method == "random" else []
    random = averages.pop("random")
    sentence = page.groups[0].seed_sentences[0]
    for seed, value in zip(seeds, random, strict=True):
        place = 1 + sum(other > value for (other,) in averages.values())
        listed = re.search(rf"{place} \(seeds? ([\d, ]+)\)", sentence)[1]
        assert str(seed) in listed.split(", ")


def test_weights_count_what_stays(page):
    weights, calibration = page.groups[0].costs
    rows = {row.head.text: row.cells for row in weights.rows}
    layers, count, _ = PAPER_MODELS["qwen"]
    # Each of the 24 layers loses 30 of its 60 experts of 8,650,752 parameters, 2 bytes each.
    left = 14_315_784_192 - layers * 30 * 8_650_752
    assert rows["50\xa0%"][1].sort == left
    assert rows["50\xa0%"][2].text == f"{left * 2 / 1e9:.3g}\xa0GB"
    assert rows["unpruned"][0].text == f"{count} of {count}"
    read = {row.head.text: row.cells[-1].sort for row in calibration.rows}
    assert read["random"] == 0
    assert read["reap-c4"] == 524_288
    assert read["tb-coverage"] == 2 * 524_288  # its candidate reads c4, which it reads itself


def test_published_figures_stand_beside_ours(results, page):
    ((protocol, table),) = page.groups[0].published
    assert "does not state the evaluation harness" in protocol
    cells = [c for c in results.cells if c.model == "qwen" and c.retain == 0.75]
    ours = [results.average_of(c).value for c in cells if c.method == "random"]
    found = {
        (row.head.text, row.cells[1].details): row.cells[2:5]
        for row in table.rows
        if row.cells[0].sort == 0.75
    }
    paper, here, gap = found["random", ()]
    assert (paper.text, here.sort) == ("0.645", pytest.approx(np.mean(ours)))
    assert gap.sort == pytest.approx(np.mean(ours) - 0.645)
    assert found["random", ("minimum over seeds",)][1].sort == pytest.approx(min(ours))
    assert found["random", ("seed 42",)][1].sort == pytest.approx(ours[-1])
    assert found["random", ("std over seeds",)][1].sort == pytest.approx(np.std(ours, ddof=1))
    by_method = {c.method: results.average_of(c).value for c in cells if c.seed is None}
    gain = by_method["tb-coverage"] - by_method["expert-sparsity"]
    assert found["tb-coverage", ("over expert-sparsity",)][1].sort == pytest.approx(gain)
    (_, other), = page.groups[1].published  # fmt: skip
    assert {row.cells[1].text for row in other.rows} == {"Common Avg", "ppl-c4", "ppl-wikitext2"}


def test_published_figures_need_the_same_model_and_names(results):
    published = load_published(PUBLISHED)
    # The paper's DeepSeek has 64 experts; this model of that name has 60.
    own = [cell for cell in results.cells if cell.model == "qwen"]
    cells = tuple(dataclasses.replace(cell, model="deepseek") for cell in own)
    masks = {("deepseek", m): keep for (name, m), keep in results.masks.items() if name == "qwen"}
    other = dataclasses.replace(results, cells=cells, masks=masks)
    assert figures.page(other, published).groups[0].published == ()
    unnamed = dataclasses.replace(results, average="Mean")
    assert figures.page(unnamed, published).groups[0].published == ()


def test_installed_figures_are_shown_and_a_file_beside_the_reports_takes_their_place(
    results, tmp_path
):
    chosen = [c for c in results.cells if c.model == "qwen" and c.method in ("none", "random")]
    few = dataclasses.replace(results, cells=tuple(c for c in chosen if c.retain in (0.75, 1.0)))
    (shipped,) = PUBLISHED.glob("*.yaml")
    assert shipped.read_text().count("arXiv 2607.01710") == 1
    own = tmp_path / "reports" / "published" / shipped.name
    for theirs, ours in ((True, False), (False, True)):
        page = render(few, tmp_path / "reports" / "run").read_text()
        assert ("arXiv 2607.01710: qwen" in page, "figures of ours: qwen" in page) == (theirs, ours)
        own.parent.mkdir(exist_ok=True)
        own.write_text(shipped.read_text().replace("arXiv 2607.01710", "figures of ours"))
    own.rename(own.with_name("more.yaml"))
    papers = [paper.paper[-16:] for paper in load_published(PUBLISHED, own.parent)]
    assert papers == ["arXiv 2607.01710", " figures of ours"]


def test_malformed_published_figures_are_refused_by_name(tmp_path):
    assert load_published(tmp_path / "none") == ()
    (tmp_path / "a.yaml").write_text("paper: P\nprotocol: x\nmodels: {}\nfigures: [{retain: 2}]\n")
    with pytest.raises(MbenchError, match=r"a\.yaml are malformed: figures\.0\."):
        load_published(tmp_path)
