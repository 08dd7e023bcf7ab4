import dataclasses
import functools
import json
import math
import random
import shutil

import pandas as pd
import pytest

from helpers.damage import flip
from helpers.demo_results import CLOZE, MODEL, SEEDS, synthetic
from mbench.core.cell_results import TaskStatus
from mbench.core.errors import MbenchError, StoreError
from mbench.core.evaluation import evaluation
from mbench.core.results import DTYPES, long_form
from mbench.storage.results_folder import load_results, read, write
from mbench.storage.results_json import FORMAT
from mbench.storage.seal import OPEN_SEAL, sealed


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


def test_names_of_items_are_held_once_and_written_as_categories(written):
    for results in (read(written), synthetic()):
        distinct = {}
        for cell in results.cells:
            for task, outcome in cell.evaluations.items():
                distinct.setdefault((cell.model, task), set()).add(id(outcome.columns["item"]))
        assert {len(arrays) for arrays in distinct.values()} == {1}
    items = pd.read_parquet(written / "items.parquet")
    assert (items.dtypes[["model", "router", "mask", "task", "item"]] == "category").all()


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


def test_results_of_another_format_are_refused_in_one_line(tmp_path, written):
    data = json.loads((written / "results.json").read_text())
    for number, message in [
        (None, "were written by an older mbench: run the suite again; nothing in the store is"),
        (data["format"] - 1, "were written by an older mbench"),
        (data["format"] + 1, "were written by a newer mbench"),
    ]:
        other = {name: value for name, value in data.items() if name != "format"}
        other |= {} if number is None else {"format": number}
        (tmp_path / "results.json").write_text(json.dumps(other))
        with pytest.raises(StoreError, match=message) as error:
            read(tmp_path)
        assert one_line(error)


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("models",), {}),
        (("methods", MODEL), {}),
        (("tasks",), {}),
        (("router",), "both"),
        (("models", MODEL, "facts", "layers"), "one"),
        (("runs", 0, "cost", "interrupted"), 0),
        (("runs", 0, "command"), "mbench run"),
        (("runs", 0, "unheard-of"), 1),
    ],
)
def test_incomplete_or_wrong_records_are_malformed(tmp_path, written, path, wrong):
    data = json.loads((written / "results.json").read_text())
    *above, last = ("provenance", *path)
    functools.reduce(lambda place, key: place[key], above, data)[last] = wrong
    data["checksum"] = OPEN_SEAL
    (tmp_path / "results.json").write_bytes(sealed(json.dumps(data).encode()))
    (tmp_path / "items.parquet").write_bytes((written / "items.parquet").read_bytes())
    with pytest.raises(StoreError, match=f"malformed.*{last if wrong else ''}") as error:
        read(tmp_path)
    assert one_line(error)


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
    for text in ("{", "[]", '{"format": "x"}', f'{{"format": {FORMAT}}}'):
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
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    items = pd.read_parquet(written / "items.parquet")
    items[items["task"] != "bible"].to_parquet(tmp_path / "items.parquet")
    with pytest.raises(StoreError, match=r"malformed: items\.parquet is damaged"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["results.json", "items.parquet"])
def test_no_flipped_bit_becomes_a_figure(tmp_path, written, name):
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    size = (written / name).stat().st_size
    generator = random.Random(0)
    for _ in range(50):
        bit = generator.randrange(8 * size)
        flip(tmp_path / name, bit)
        with pytest.raises(StoreError) as error:
            read(tmp_path)
        assert one_line(error)
        flip(tmp_path / name, bit)
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
