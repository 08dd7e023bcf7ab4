"""Figures of papers beside ours."""

import dataclasses

import numpy as np
import pytest

from helpers.pages import paper_boards, render_page
from helpers.places import PUBLISHED
from helpers.synthetic import paper_sized
from mbench.core.errors import MbenchError
from mbench.report.figures_of_papers import load_published
from mbench.report.statistics.boards import boards
from mbench.report.tables.published_figures import published_figures


def test_published_figures_stand_beside_ours():
    results, (qwen, deepseek) = paper_boards().results, paper_boards().groups
    (paper,) = load_published(PUBLISHED)
    assert "does not state the evaluation harness" in paper.protocol
    table = published_figures(qwen, paper, "id")
    cells = [c for c in results.cells if c.model == "qwen" and c.retain == 0.75]
    ours = [results.average_of(c).value for c in cells if c.method == "random"]
    found = {
        (row.head.text, row.cells[1].details): row.cells[2:5]
        for row in table.rows
        if row.cells[0].sort == 0.25  # pruned
    }
    theirs, here, gap = found["random", ()]
    assert (theirs.text, here.sort) == ("0.645", pytest.approx(np.mean(ours)))
    assert gap.sort == pytest.approx(np.mean(ours) - 0.645)
    assert found["random", ("minimum over seeds",)][1].sort == pytest.approx(min(ours))
    assert found["random", ("seed 42",)][1].sort == pytest.approx(ours[-1])
    assert found["random", ("std over seeds",)][1].sort == pytest.approx(np.std(ours, ddof=1))
    by_method = {c.method: results.average_of(c).value for c in cells if c.seed is None}
    gain = by_method["tb-coverage"] - by_method["expert-sparsity"]
    assert found["tb-coverage", ("over expert-sparsity",)][1].sort == pytest.approx(gain)
    other = published_figures(deepseek, paper, "id")
    assert {row.cells[1].text for row in other.rows} == {"Common Avg", "ppl-c4", "ppl-wikitext2"}


def test_published_figures_need_the_same_model_and_names():
    results = paper_boards().results
    (paper,) = load_published(PUBLISHED)
    # The paper's DeepSeek has 64 experts; this model of that name has 60.
    own = [cell for cell in results.cells if cell.model == "qwen"]
    cells = tuple(dataclasses.replace(cell, model="deepseek") for cell in own)
    masks = {("deepseek", m): keep for (name, m), keep in results.masks.items() if name == "qwen"}
    other = dataclasses.replace(results, cells=cells, masks=masks)
    assert published_figures(boards(other).groups[0], paper, "id") is None
    unnamed = dataclasses.replace(results, average="Mean")
    assert published_figures(boards(unnamed).groups[0], paper, "id") is None


def test_installed_figures_are_shown_and_a_file_beside_the_reports_takes_their_place(tmp_path):
    results = paper_sized(items=25)
    chosen = [c for c in results.cells if c.model == "qwen" and c.method in ("none", "random")]
    few = dataclasses.replace(results, cells=tuple(c for c in chosen if c.retain in (0.75, 1.0)))
    (shipped,) = PUBLISHED.glob("*.yaml")
    assert shipped.read_text().count("arXiv 2607.01710") == 1
    own = tmp_path / "reports" / "published" / shipped.name
    for theirs, ours in ((True, False), (False, True)):
        page = render_page(few, tmp_path / "reports" / "run").read_text()
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
