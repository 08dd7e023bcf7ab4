"""The figures of the page, recomputed from the files with nothing of the report's code."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from helpers.demo_results import ABILITY, CLOZE, CORPORA, SEEDS, synthetic
from helpers.page_tables import Tables, first, leaderboard
from helpers.pages import html_of
from mbench.core.cell_results import TaskStatus
from mbench.storage.results_folder import write


@pytest.fixture(scope="module")
def tables():
    return Tables(html_of(synthetic())).tables


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """items.parquet, and results.csv's line of every mask at 50 % and of the unpruned model."""
    directory = tmp_path_factory.mktemp("run")
    write(synthetic(), directory)
    csv = pd.read_csv(directory / "results.csv", keep_default_na=False)
    masks = csv.drop_duplicates(["method", "seed", "retain"]).query("retain in (0.5, 1.0)")
    return pd.read_parquet(directory / "items.parquet"), masks


def outcomes(files, method, task, seed=None):
    """One column per mask of the method, indexed by item."""
    items, masks = files
    own = masks[masks.method == method]
    hashes = own["mask"] if seed is None else own[own.seed == str(seed)]["mask"]
    rows = items[(items.task == task) & items["mask"].isin(hashes)]
    return rows.pivot(index="item", columns="mask", values="acc_norm")[list(hashes)]


def average(files, method):
    """[seeds] the mean of the three cloze tasks' means."""
    return np.mean([outcomes(files, method, task).mean().to_numpy() for task in CLOZE], axis=0)


def test_figures_of_each_task(tables, files):
    items, masks = files
    rows = leaderboard(tables, 50)
    for method in set(ABILITY) - {"frequency"}:  # whose last task failed
        for task in CLOZE:
            own = outcomes(files, method, task)
            assert first(rows[method][task]) == pytest.approx(own.mean().item(), abs=6e-4)
        for corpus in CORPORA:
            (mask,) = masks[masks.method == method]["mask"]
            own = items[(items["mask"] == mask) & (items.task == corpus)]
            perplexity = math.exp(own.nll.sum() / own.tokens.sum())
            assert first(rows[method][corpus]) == pytest.approx(perplexity, rel=1e-3)


def test_average_and_its_errors(tables, files):
    rows = leaderboard(tables, 50)
    for method in set(ABILITY) - {"frequency"}:
        errors = [outcomes(files, method, task).sem().item() for task in CLOZE]
        shown, error = rows[method]["Common Avg"].split("|")
        assert float(shown) == pytest.approx(average(files, method).item(), abs=6e-4)
        assert float(error[2:]) == pytest.approx(math.hypot(*errors) / 3, abs=6e-4)
    random = average(files, "random")
    mean, spread, bounds = rows["random"]["Common Avg"].split("|")
    assert len(random) == 6
    assert float(mean) == pytest.approx(random.mean(), abs=6e-4)
    assert float(spread[2:]) == pytest.approx(random.std(ddof=1), abs=6e-4)
    ends = [float(text) for text in bounds.split("–")]
    assert ends == pytest.approx([random.min(), random.max()], abs=6e-4)


def test_what_is_said_of_random_pruning(tables, files):
    rows = leaderboard(tables, 50)
    random = average(files, "random")
    gap = average(files, "none").item() - random.mean()
    for method in set(ABILITY) - {"frequency"}:
        value = average(files, method).item()
        share = round((value - random.mean()) / gap, 2)
        text = f"{100 * share:.4g}\xa0%".replace("-", "−")
        assert rows[method]["Gap closed"].split("|")[0] == text
        assert first(rows[method]["vs. random"]) == pytest.approx(value - random.mean(), abs=6e-4)


def test_intervals_against_the_unpruned_model_hold_for_all_at_once(tables, files):
    """Bonett and Price's interval by task, averaged, with Welch's degrees of freedom, at 5 % over
    the number of comparisons: every method, and random pruning."""
    rows = leaderboard(tables, 50)
    methods = set(ABILITY) - {"frequency"}
    tested = len(methods) + 1
    for method in methods:
        centres, variances = [], []
        for task in CLOZE:
            one, other = (outcomes(files, m, task).iloc[:, 0] for m in (method, "none"))
            grown = np.r_[(one - other).to_numpy(), 1.0, -1.0]
            centres.append(grown.mean())
            variances.append(grown.var() / len(grown))
        variance = sum(variances) / 9
        freedom = variance**2 / (sum(v**2 / 199 for v in variances) / 81)
        half = scipy.stats.t.isf(0.025 / tested, freedom) * math.sqrt(variance)
        _, bounds = rows[method]["vs. unpruned"].split("|")
        low, high = (first(text) for text in bounds.strip("[]").split(", "))
        # A bound beside zero may be that of Holm's step, which is nearer.
        outer = (low, np.mean(centres) - half), (high, np.mean(centres) + half)
        assert sum(shown == pytest.approx(own, abs=6e-4) for shown, own in outer) >= 1
        assert all(abs(shown - own) < half / 2 for shown, own in outer)


def test_unpruned_comes_first_and_incomplete_methods_last_without_rank(tables):
    for percent, missing in ((25, "expert-sparsity"), (50, "frequency"), (75, "output-norm")):
        rows = list(leaderboard(tables, percent).items())
        assert [name for name, _ in rows[:2]] == ["unpruned", "random"]
        assert {row["Rank"] for _, row in rows[:2]} == {"–"}
        assert rows[-1][0] == missing
        ranks = [row["Rank"].split("–") for _, row in rows[2:-1]]
        assert ranks[0][0] == "1"
        assert all(1 <= int(rank[0]) <= int(rank[-1]) <= len(ranks) for rank in ranks)
        averages = [first(row["Common Avg"]) for _, row in rows[2:-1]]
        assert averages == sorted(averages, reverse=True)


def test_failures_are_shown_with_their_reason(tables):
    assert leaderboard(tables, 50)["frequency"]["cloze-code"] == "failed|out of memory"
    assert leaderboard(tables, 50)["frequency"]["Common Avg"] == "incomplete"
    whole = leaderboard(tables, 25)["expert-sparsity"]
    assert whole.pop("Common Avg").startswith("failed|expert-sparsity: no subset")
    assert set(whole.values()) == {"expert-sparsity", "–"}
    # A task outside the average does not cost a method its rank.
    mean = leaderboard(tables, 75)["mean"]
    assert mean["Rank"][0].isdigit()
    assert mean["bible"] == "failed|loss is not finite in window 3"
    listed = {
        (row[0], row[4], row[5]) for row in tables["Results that are missing or not comparable"][1:]
    }
    assert listed == {
        ("expert-sparsity", "mask", "failed"),
        ("frequency", "cloze-code", "failed"),
        ("output-norm", "cloze-code", "interrupted"),
        ("mean", "bible", "failed"),
    }


def test_a_task_without_its_metric_is_shown_as_failed():
    cells = list(synthetic().cells)
    at = next(n for n, c in enumerate(cells) if c.method == "mean" and c.retain == 0.5)
    found = dict(cells[at].evaluations)
    kept = tuple(m for m in found["cloze-code"].metrics if m.name != "acc_norm")
    found["cloze-code"] = dataclasses.replace(found["cloze-code"], metrics=kept)
    cells[at] = dataclasses.replace(cells[at], evaluations=found)
    assert cells[at].task_status("cloze-code") == TaskStatus("ok")
    html = html_of(dataclasses.replace(synthetic(), cells=tuple(cells)))
    row = leaderboard(Tables(html).tables, 50)["mean"]
    assert row["cloze-code"] == "failed|its items lack the metric"
    assert row["Rank"] == "–"


def test_every_seed_is_listed_with_its_summary(tables):
    name = next(n for n in tables if n.startswith("Every seed") and "50\xa0%" in n)
    heads = [row[0] for row in tables[name][1:]]
    assert heads[:6] == [f"random, seed {seed}" for seed in SEEDS]
    assert heads[6:] == [f"random, {w}" for w in ("mean", "standard deviation", "min", "max")]
