"""Which checkpoints fit under a limit, and how they compare: against loops over the cells."""

import dataclasses
import itertools

import numpy as np
import pytest
import scipy.stats

from helpers.altered import altered, without
from helpers.demo_results import CLOZE
from helpers.stored_forms import FORMS, bytes_of, failed, three_forms
from mbench.core.cell_results import TaskStatus
from mbench.report.statistics.boards import boards
from mbench.report.statistics.equal_bytes import limits_of
from mbench.report.tables.equal_bytes import limits_table


@pytest.fixture(scope="module")
def board():
    (found,) = boards(three_forms()).equal_bytes
    return found


def kind_of(cell):
    published = cell.published.stored_form if cell.published else ""
    return cell.model, published or FORMS[cell.model]


def size_of(cell):
    merged = cell.published and not cell.published.recognised
    return bytes_of("qwen-fp8" if merged else cell.model, cell.kept)


def cells_by_row():
    """(model, method, retain) -> its cells, random pruning left out."""
    rows = {}
    for cell in three_forms().cells:
        if cell.method != "random":
            rows.setdefault((cell.model, cell.method, cell.retain), []).append(cell)
    return rows


def fitting(most):
    """Under a limit: each form's unpruned checkpoint, or else the largest of each method."""
    cells = [own[0] for own in cells_by_row().values() if size_of(own[0]) <= most]
    found = set()
    for cell in cells:
        same_form = [other for other in cells if kind_of(other) == kind_of(cell)]
        if any(other.method == "none" for other in same_form) and cell.method != "none":
            continue
        rivals = [size_of(other) for other in same_form if other.method == cell.method]
        if size_of(cell) == max(rivals):
            found.add((cell.model, cell.method, cell.retain))
    return found


def score(cells):
    """From the items, task by task."""
    tasks = [
        np.mean([cell.evaluations[task].items["acc_norm"].mean() for cell in cells])
        for task in CLOZE
    ]
    return float(np.mean(tasks))


def test_rows_and_bytes_under_every_limit(board):
    sizes = sorted({size_of(own[0]) for own in cells_by_row().values()}, reverse=True)
    limits = [sizes[0]]
    for size in sizes:
        if size < 0.95 * limits[-1]:
            limits.append(size)
    expected = {}
    for most in limits:
        chosen = fitting(most)
        if len({kind_of(cells_by_row()[row][0]) for row in chosen}) > 1:
            expected[most] = chosen
    assert len(expected) > 5
    found = {limit.bytes: {row.entry.key for row in limit.rows} for limit in board.limits}
    assert {
        most: {(key.model, key.method, key.retain) for key in keys} for most, keys in found.items()
    } == expected
    for row in board.rows:
        assert row.bytes == size_of(row.entry.cells[0])
    assert any(size_of(own[0]) not in limits for own in cells_by_row().values())


def test_scores_orders_and_frontier_are_those_of_the_items(board):
    rows = cells_by_row()
    for limit in board.limits:
        keys = [row.entry.key for row in limit.rows]
        scores = [score(rows[key.model, key.method, key.retain]) for key in keys]
        assert scores == sorted(scores, reverse=True)
        np.testing.assert_allclose([row.score for row in limit.rows], scores, atol=1e-12)
    every = {key: (size_of(cells[0]), score(cells)) for key, cells in rows.items()}
    best = {
        key
        for key, (size, value) in every.items()
        if not any(
            (other <= size and more > value + 1e-12) or (other < size and more >= value - 1e-12)
            for other, more in every.values()
        )
    }
    found = [row.entry.key for row in board.frontier]
    keys = [(key.model, key.method, key.retain) for key in found]
    assert [every[key] for key in keys] == sorted({every[key] for key in best})


def test_comparisons_are_paired_by_item_and_one_family_under_a_limit(board):
    limit = max(board.limits, key=lambda own: len(own.rows))
    rows = cells_by_row()
    compared = limit.ranking.comparisons
    count = len(limit.ranking.ranked)
    assert len(compared) == count * (count - 1) // 2
    assert {c.size for c in compared.values()} == {len(compared)}
    across = 0
    for one, two in itertools.combinations(limit.rows, 2):
        found = limit.ranking.compare(one.name, two.name)
        if found is None:  # equal masks
            assert {one.method, two.method} == {"mean", "acme-mean"}
            continue
        first, second = (
            rows[own.entry.key.model, own.entry.key.method, own.entry.key.retain][0]
            for own in (one, two)
        )
        value, centre, variance, doubt = 0.0, 0.0, 0.0, 0.0
        for task in CLOZE:
            a, b = (
                cell.evaluations[task].items.set_index("item")["acc_norm"]
                for cell in (first, second)
            )
            outcomes = [float(a[item] - b[item]) for item in a.index]
            # An item won and one lost are added.
            grown = [*outcomes, 1.0, -1.0]
            mean = sum(grown) / len(grown)
            own = sum((x - mean) ** 2 for x in grown) / len(grown) ** 2
            value += sum(outcomes) / len(outcomes) / len(CLOZE)
            centre += mean / len(CLOZE)
            variance += own / len(CLOZE) ** 2
            doubt += own**2 / (len(outcomes) - 1) / len(CLOZE) ** 4
        assert found.value == pytest.approx(value, abs=1e-12)
        # The bound away from zero: all of the family at once.
        half = scipy.stats.t.isf(0.025 / len(compared), variance**2 / doubt) * variance**0.5
        far = centre + half if centre > 0 else centre - half
        assert (found.high if centre > 0 else found.low) == pytest.approx(far, abs=1e-9)
        across += one.model != two.model
    assert across > 20


def test_the_quantised_unpruned_one_beats_the_pruned_one_of_its_size(board):
    limit = next(own for own in board.limits if own.reference == "qwen-fp8, unpruned")
    assert limit.rows[0].name == "qwen-fp8, unpruned"
    pruned = [row for row in limit.rows if row.model == "qwen"]
    assert pruned
    for row in pruned:
        against = limit.against_reference(row)
        assert against.value < 0
        assert against.clear == (against.high < 0)


def test_equal_masks_of_two_forms_are_two_rows_and_of_one_form_one_row(board):
    limit = next(own for own in board.limits if own.bytes == bytes_of("qwen", 16))
    row = next(r for r in limit.ranking.ranked if any("acme-mean" in name for name in r.names))
    assert len(row.names) == 2
    whole = next(own for own in board.limits if own.bytes == bytes_of("qwen", 32))
    assert [r.method for r in whole.rows].count("none") == 3
    assert len(whole.ranking.ranked) >= 3


def test_a_failed_checkpoint_has_no_rank_and_one_of_unknown_size_no_row():
    def change(cell):
        if (cell.model, cell.method, cell.retain) == ("qwen-fp8", "mean", 0.5):
            return failed(cell)
        if (cell.model, cell.method) == ("qwen", "frequency"):
            return dataclasses.replace(cell, weight_bytes=None)
        return cell

    (found,) = boards(altered(change, three_forms())).equal_bytes
    names = {row.name for row in found.rows}
    assert "qwen, frequency, 50\xa0% pruned" in found.unknown
    assert not any("qwen, frequency" in name for name in names)
    limit = next(
        own
        for own in found.limits
        if any(r.name == "qwen-fp8, mean, 50\xa0% pruned" for r in own.rows)
    )
    last = limit.rows[-1]
    assert last.method == "mean"
    assert limit.row_of(last) is None
    assert [own.entry.method for own in limit.ranking.unranked] == [last.name]


@pytest.mark.parametrize("reached", [(), ("qwen",), ("qwen", "qwen-fp8")])
def test_a_run_that_is_not_at_its_end_has_what_there_is(reached):
    def change(cell):
        return cell if cell.model in reached else failed(cell)

    found = boards(altered(change, three_forms(checkpoints=False))).equal_bytes
    assert bool(found) == (len(reached) > 1)
    for limit in (limit for own in found for limit in own.limits):
        assert {row.model for row in limit.rows if limit.row_of(row)} == set(reached)


def test_one_form_alone_has_no_board():
    one = altered(
        lambda cell: cell if cell.model == "qwen" and not cell.published else None, three_forms()
    )
    assert boards(one).equal_bytes == ()
    # A published checkpoint in another form is one.
    with_it = altered(lambda cell: cell if cell.model == "qwen" else None, three_forms())
    (found,) = boards(with_it).equal_bytes
    assert found.forms == ("bfloat16", "FP8 128x128")


def test_models_that_are_not_declared_to_be_the_same_are_apart():
    results = three_forms(checkpoints=False)
    models = {
        name: dataclasses.replace(record, same_as=None)
        for name, record in results.provenance.models.items()
    }
    apart = dataclasses.replace(
        results, provenance=dataclasses.replace(results.provenance, models=models)
    )
    assert boards(apart).equal_bytes == ()


def test_random_pruning_is_no_contender(board):
    assert {row.method for row in board.random} == {"random"}
    assert not any(row.method == "random" for limit in board.limits for row in limit.rows)
    without_it = altered(without("random"), three_forms())
    (found,) = boards(without_it).equal_bytes
    assert [limit.bytes for limit in found.limits] == [limit.bytes for limit in board.limits]


def test_nearly_equal_sizes_have_one_limit():
    assert limits_of([100, 96, 95, 94, 90, 50]) == [100, 94, 50]


@pytest.mark.parametrize("done", [0, 1, 2, 9, 30])
def test_in_the_middle_of_a_run_there_is_a_board_or_none(done):
    """The page is written while masks of later models have no outcomes yet."""
    whole = three_forms()
    left = dict.fromkeys(whole.task_metrics, TaskStatus("pending", "not reached yet"))
    cells = tuple(
        cell if number < done else dataclasses.replace(cell, evaluations={}, tasks=left)
        for number, cell in enumerate(whole.cells)
    )
    for found in boards(dataclasses.replace(whole, cells=cells)).equal_bytes:
        assert all(
            limit.ranking.row_of(row.name) is None or row.score
            for limit in found.limits
            for row in limit.rows
        )


def test_a_limit_says_by_how_much_the_best_leads_that_of_another_form(board):
    table = limits_table(board)
    place = [column.text for column in table.columns].index("Minus the best of another form") - 1
    rows = cells_by_row()
    for limit, row in zip(board.limits, table.rows, strict=True):
        scored = {
            own.entry.key: score(
                rows[own.entry.key.model, own.entry.key.method, own.entry.key.retain]
            )
            for own in limit.rows
            if limit.row_of(own) is not None
        }
        kinds = {own.entry.key: own.kind for own in limit.rows}
        best = max(scored, key=scored.get)
        others = [value for key, value in scored.items() if kinds[key] != kinds[best]]
        assert row.cells[place].sort == pytest.approx(scored[best] - max(others))
