import dataclasses
import functools
import json
import math

import numpy as np
import pandas as pd
import pytest

from mbench.core.errors import MbenchError, StoreError
from mbench.core.evaluation import evaluation
from mbench.core.interfaces import ExpertMask
from mbench.core.results import (
    DTYPES,
    CellResult,
    Results,
    TaskStatus,
    long_form,
)
from mbench.storage.results_folder import load_results, read, write

MODEL = "demo/tiny-moe"
LAYERS, EXPERTS = 8, 32
CORPORA = ("bible", "wikitext2", "code")
CLOZE = ("cloze-bible", "cloze-wikitext2", "cloze-code")
SEEDS = (0, 1, 2, 3, 4, 42)
# Ability of each method: how near it comes to the unpruned model.
ABILITY = {
    "reap-bible": 0.45,
    "reap-wiki": 0.55,
    "reap-code": 0.4,
    "frequency": 0.3,
    "router-weight": 0.35,
    "output-norm": 0.25,
    "expert-sparsity": 0.6,
    "mean": 0.66,
    "max": 0.62,
    "mean-protected": 0.7,
    "max-protected": 0.64,
    "tb-coverage": 0.72,
}


def _items(rng, task, ability):
    """Outcomes on items whose difficulty does not depend on the method."""
    fixed = np.random.default_rng(list(task.encode()))
    if task in CLOZE:
        need = fixed.uniform(0, 1.1, 200)
        chance = np.clip(0.5 + 2 * (ability - need) + rng.normal(0, 0.4, 200), 0, 1)
        return pd.DataFrame(
            {
                "item": [f"{task}/{n}" for n in range(200)],
                "acc": (chance > 0.5).astype(float),
                "acc_norm": (chance > 0.45).astype(float),
            }
        )
    tokens = fixed.integers(90, 128, 40)
    per_token = fixed.normal(3.2, 0.4, 40) + 3 * (1 - ability) + rng.normal(0, 0.1, 40)
    return pd.DataFrame(
        {
            "item": [f"0:{128 * n}" for n in range(40)],
            "nll": per_token * tokens,
            "tokens": tokens,
            "bytes": tokens * 4 + fixed.integers(0, 9, 40),
        }
    )


@functools.cache
def synthetic(failures=True, model=MODEL, average="Common Avg"):
    """A run of 13 methods at 3 budgets, with per-item outcomes, always the same."""
    rng = np.random.default_rng(12)
    tasks = {**dict.fromkeys(CORPORA, "perplexity"), **dict.fromkeys(CLOZE, "acc_norm")}
    cells, masks, by_mask = [], {}, {}

    def add(method, seed, retain, keep, ability, notes=()):
        mask = ExpertMask(keep).content_hash
        masks[model, mask] = keep
        if mask not in by_mask:
            by_mask[mask] = {t: evaluation(t, _items(rng, t, ability)) for t in tasks}
        statuses = dict.fromkeys(tasks, TaskStatus("ok"))
        kept = int(keep[0].sum())
        cells.append(
            CellResult(
                model,
                method,
                seed,
                retain,
                kept,
                "sliced",
                mask,
                "ok",
                "",
                notes,
                by_mask[mask],
                statuses,
            )
        )

    def draw(kept, shared):
        keep = np.zeros((LAYERS, EXPERTS), bool)
        for row in keep:
            first = np.arange(int(kept * shared))
            rest = rng.permutation(np.arange(len(first), EXPERTS))[: kept - len(first)]
            row[np.concatenate([first, rest])] = True
        return keep

    add("none", None, 1.0, np.ones((LAYERS, EXPERTS), bool), 1.0)
    for retain in (0.25, 0.5, 0.75):
        kept = int(retain * EXPERTS)
        for seed in SEEDS:
            add("random", seed, retain, draw(kept, 0), 0.9 * retain + rng.normal(0, 0.03))
        for method, ability in ABILITY.items():
            notes = ()
            if method == "tb-coverage" and retain == 0.25:
                notes = (f"protection budget clamped from 12 to {kept}",)
            if method == "max-protected" and retain == 0.25:
                keep = masks[model, cells[-2].mask]  # the mask of `max`
            else:
                keep = draw(kept, ability)
            add(method, None, retain, keep, 0.6 * ability + 0.55 * retain, notes)
    if failures:
        _break(cells)
    return Results(
        suite="quickstart",
        title="Expert pruning on the demo model",
        description="Random numbers in the shape of a run.",
        task_metrics=tasks,
        average=average,
        average_tasks=CLOZE if average else (),
        cells=tuple(cells),
        masks=masks,
        provenance={
            "command": "mbench run quickstart",
            "versions": {"mbench": "0.1", "torch": "2.9.1"},
            "cost": {"forward tokens": 123456, "seconds": 41.5},
            "models": [{"name": model, "hash": "ab" * 32}],
        },
        protocol=(
            ("Router", "sliced: dropped experts leave the router"),
            ("Perplexity", "window 128, stride 128, every token scored once"),
            ("Calibration", "bible, wikitext2, code: 64 sequences of 128 tokens each"),
        ),
    )


def _break(cells):
    """A mask that failed, a task that failed, and a run that was stopped before its end."""
    find = {(cell.method, cell.retain): n for n, cell in enumerate(cells)}
    n = find["expert-sparsity", 0.25]
    reason = "expert-sparsity: no subset of 8 experts was found within 600 s; raise `seconds`"
    cells[n] = dataclasses.replace(
        cells[n],
        mask="",
        status="failed",
        reason=reason,
        evaluations={},
        tasks=dict.fromkeys(cells[n].tasks, TaskStatus("blocked", reason)),
    )
    for key, task, status in (
        (("frequency", 0.5), "cloze-code", TaskStatus("failed", "out of memory")),
        (("output-norm", 0.75), "cloze-code", TaskStatus("interrupted", "stopped by Ctrl-C")),
        (("mean", 0.75), "bible", TaskStatus("failed", "loss is not finite in window 3")),
    ):
        cell = cells[find[key]]
        cells[find[key]] = dataclasses.replace(
            cell,
            tasks={**cell.tasks, task: status},
            evaluations={t: e for t, e in cell.evaluations.items() if t != task},
        )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    write(synthetic(), directory)
    return directory


def test_long_form_has_every_figure_once():
    table = long_form(synthetic())
    assert {name: str(dtype) for name, dtype in table.dtypes.items()} == DTYPES
    assert not table.duplicated(["model", "method", "seed", "retain", "task", "metric"]).any()
    unpruned = table[table.method == "none"]
    # 3 corpora with 3 metrics, 3 cloze tasks with 2, and the average.
    assert len(unpruned) == 3 * 3 + 3 * 2 + 1
    assert unpruned.seed.isna().all()
    assert sorted(table[table.method == "random"].seed.unique()) == list(SEEDS)


def test_average_follows_from_its_tasks():
    table = long_form(synthetic()).query("method == 'tb-coverage' and retain == 0.5")
    parts = table[table.task.isin(CLOZE) & (table.metric == "acc_norm")]
    average = table[table.task == "Common Avg"].iloc[0]
    assert average.metric == "mean"
    assert average.value == pytest.approx(parts.value.mean())
    assert average.stderr == pytest.approx(math.hypot(*parts.stderr) / 3)
    assert average["items"] == 600


def test_what_failed_has_one_row_and_no_average():
    table = long_form(synthetic())
    failed = table.query("method == 'frequency' and retain == 0.5")
    row = failed[failed.status == "failed"]
    assert row[["task", "metric"]].values.tolist() == [["cloze-code", "acc_norm"]]
    assert row.value.isna().all()
    assert row["items"].isna().all()
    assert "Common Avg" not in set(failed.task)
    blocked = table.query("method == 'expert-sparsity' and retain == 0.25")
    assert blocked.status.tolist() == ["blocked"] * 6
    assert set(blocked["mask"]) == {""}


def test_task_without_status_has_that_of_its_mask():
    cell = dataclasses.replace(
        synthetic().cells[0], status="failed", reason="no", tasks={}, evaluations={}
    )
    assert cell.task_status("bible") == TaskStatus("failed", "no")
    assert cell.metric("bible", "perplexity") is None


def test_csv_round_trip_is_exact(written):
    table = load_results(written)
    pd.testing.assert_frame_equal(table, long_form(synthetic()), check_exact=True)
    pd.testing.assert_frame_equal(table, load_results(str(written / "results.csv")))


def test_results_round_trip(written):
    found = read(written)
    assert found == synthetic()
    assert found.masks.keys() == synthetic().masks.keys()
    for key, keep in found.masks.items():
        assert (keep == synthetic().masks[key]).all()
    for ours, theirs in zip(synthetic().cells, found.cells, strict=True):
        for task, one in ours.evaluations.items():
            if ours.task_status(task).status == "ok":
                pd.testing.assert_frame_equal(one.items, theirs.evaluations[task].items)


def test_equal_masks_are_stored_once(written):
    items = pd.read_parquet(written / "items.parquet")
    assert not items.duplicated(["model", "router", "mask", "task", "item"]).any()
    table = load_results(written)
    pair = table.query("retain == 0.25 and method in ['max', 'max-protected']")
    assert pair["mask"].nunique() == 1


def test_everything_can_be_recomputed_from_the_items(written):
    items = pd.read_parquet(written / "items.parquet")
    groups = dict(list(items.groupby(["mask", "task"])))
    for row in load_results(written).query("status == 'ok'").itertuples():
        own = groups.get((row.mask, row.task))
        if row.metric in ("acc", "acc_norm"):
            assert row.value == pytest.approx(own[row.metric].mean())
        elif row.metric == "perplexity":
            assert row.value == pytest.approx(math.exp(own.nll.sum() / own.tokens.sum()))


def test_equal_results_give_equal_bytes(written, tmp_path):
    write(read(written), tmp_path)
    for name in ("results.csv", "items.parquet", "results.json"):
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "items.parquet",
        "results.csv",
        "results.json",
    ]


def test_a_run_without_any_result_can_be_written(tmp_path):
    cell = dataclasses.replace(
        synthetic().cells[0],
        status="failed",
        reason="no weights",
        mask="",
        evaluations={},
        tasks={},
    )
    results = dataclasses.replace(synthetic(), cells=(cell,), masks={})
    write(results, tmp_path)
    assert read(tmp_path) == results
    pd.testing.assert_frame_equal(load_results(tmp_path), long_form(results))
    write(dataclasses.replace(results, cells=()), tmp_path)
    assert load_results(tmp_path).empty


def test_tables_keep_their_own_columns_and_dtypes(tmp_path):
    """A group of tasks: text beside the metrics, and metrics that not every item has."""
    items = pd.DataFrame(
        {
            "item": ["a", "b", "c"],
            "part": ["x", "x", "y"],
            "number": [1, 2, 3],
            "acc": [1.0, 0.0, math.nan],
            "exact_match": [math.nan] * 3,
        }
    )
    cell = synthetic().cells[0]
    found = {**cell.evaluations, "cloze-code": evaluation("cloze-code", items)}
    cell = dataclasses.replace(cell, evaluations=found)
    write(dataclasses.replace(synthetic(), cells=(cell,)), tmp_path)
    pd.testing.assert_frame_equal(read(tmp_path).cells[0].evaluations["cloze-code"].items, items)


def test_names_that_look_like_missing_values_are_kept(tmp_path):
    cells = tuple(dataclasses.replace(c, method="null") for c in synthetic().cells[:1])
    write(dataclasses.replace(synthetic(), cells=cells), tmp_path)
    assert set(load_results(tmp_path).method) == {"null"}


def test_provenance_takes_numpy_values_and_infinity(tmp_path):
    odd = {"a": np.int64(3), "b": np.array([1.0, math.inf]), "c": {"d": (1, None, True)}}
    write(dataclasses.replace(synthetic(), provenance=odd), tmp_path)
    assert read(tmp_path).provenance == {"a": 3, "b": [1.0, "inf"], "c": {"d": [1, None, True]}}


def test_different_outcomes_of_one_mask_are_refused(tmp_path):
    first = synthetic().cells[0]
    items = first.evaluations["bible"].items.assign(nll=1.0)
    other = {**first.evaluations, "bible": evaluation("bible", items)}
    second = dataclasses.replace(first, method="again", evaluations=other)
    with pytest.raises(ValueError, match="two different outcomes"):
        write(dataclasses.replace(synthetic(), cells=(first, second)), tmp_path)


def one_line(error):
    return "\n" not in str(error.value) and "Traceback" not in str(error.value)


def test_missing_and_malformed_files_are_told_in_one_line(tmp_path, written):
    with pytest.raises(MbenchError, match="no results at") as error:
        load_results(tmp_path / "nowhere")
    assert one_line(error)
    with pytest.raises(StoreError, match=r"results\.json is missing"):
        read(tmp_path)
    bad = tmp_path / "results.csv"
    for text in ("", "a,b\n1,2\n", 'model,"\n', "model,seed\nx,notanumber\n"):
        bad.write_text(text)
        with pytest.raises(MbenchError, match="is not a table of results") as error:
            load_results(bad)
        assert one_line(error)
    for text in ("{", "[]", "{}", '{"tasks": 3}'):
        (tmp_path / "results.json").write_text(text)
        (tmp_path / "items.parquet").write_bytes((written / "items.parquet").read_bytes())
        with pytest.raises(StoreError, match="malformed") as error:
            read(tmp_path)
        assert one_line(error)
    (tmp_path / "results.json").write_bytes((written / "results.json").read_bytes())
    (tmp_path / "items.parquet").write_bytes(b"PAR1")
    with pytest.raises(StoreError, match="malformed") as error:
        read(tmp_path)
    assert one_line(error)


def test_results_without_their_items_are_malformed(tmp_path, written):
    data = json.loads((written / "results.json").read_text())
    items = pd.read_parquet(written / "items.parquet")
    items[items["task"] != "bible"].to_parquet(tmp_path / "items.parquet")
    (tmp_path / "results.json").write_text(json.dumps(data))
    with pytest.raises(StoreError, match="malformed"):
        read(tmp_path)


def test_an_unwritable_place_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write") as error:
        write(synthetic(), tmp_path / "file")
    assert one_line(error)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    write(synthetic(), tmp_path)
    before = (tmp_path / "results.csv").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mbench.storage.store.Path.replace", full)
    with pytest.raises(StoreError, match="No space left on device"):
        write(synthetic(failures=False), tmp_path)
    assert (tmp_path / "results.csv").read_bytes() == before
    assert not list(tmp_path.glob(".*"))
