"""The tables that a folder of results holds: all per-item outcomes, and what pruning saves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mbench.core.evaluation import Evaluation
from mbench.core.item_names import ItemNames
from mbench.core.results import Results
from mbench.core.savings import Footprint, Saving, Spread
from mbench.storage.results_json import KEY

if TYPE_CHECKING:
    import pandas as pd


def gather_items(results: Results) -> tuple[pd.DataFrame, dict[str, dict[str, str]]]:
    """All per-item tables under one another, with names as categories; and each task's columns with
    their dtypes."""
    import pandas as pd

    outcomes: dict[tuple[str, ...], Evaluation] = {}
    dtypes: dict[str, dict[str, str]] = {}
    for cell in results.cells:
        for task in results.task_metrics:
            if cell.task_status(task).status != "ok":
                continue
            outcome = cell.evaluations[task]
            items = outcome.items
            key = (cell.model, cell.router, cell.mask, task)
            first = outcomes.setdefault(key, outcome).items
            if first is not items and not first.equals(items):
                raise ValueError(f"two different outcomes of one mask on {task}: {key}")
            if task not in dtypes:
                dtypes[task] = {str(name): str(kind) for name, kind in items.dtypes.items()}
    if not outcomes:
        return pd.DataFrame(columns=[*KEY, "item"], dtype="str"), dtypes
    numbers: dict[str, int] = {}
    numbered: dict[ItemNames, np.ndarray] = {}
    for outcome in outcomes.values():
        if outcome.names not in numbered:
            found = [numbers.setdefault(name, len(numbers)) for name in outcome.names.array]
            numbered[outcome.names] = np.array(found, np.int32)
    joined = _joined(list(outcomes.values()), numbered)
    joined["item"] = pd.Categorical.from_codes(joined["item"], pd.Index(numbers, dtype="str"))
    lengths = [len(each.items) for each in outcomes.values()]
    for position, (name, values) in enumerate(zip(KEY, zip(*outcomes, strict=True), strict=True)):
        codes, categories = pd.factorize(np.array(values, dtype=object))
        whole = pd.Categorical.from_codes(np.repeat(codes, lengths), categories.astype("str"))
        joined.insert(position, name, whole)
    return joined, dtypes


def _joined(
    outcomes: Sequence[Evaluation], numbered: Mapping[ItemNames, np.ndarray]
) -> pd.DataFrame:
    """The tables under one another, with numbers for names.

    Tables of one task first, and then all rows in order: thousands of tables that differ take
    twice as long to join.
    """
    import pandas as pd

    alike: dict[tuple[object, ...], list[int]] = {}
    for at, each in enumerate(outcomes):
        alike.setdefault((each.task, *each.items.columns), []).append(at)
    tables = []
    for places in alike.values():
        table = pd.concat([outcomes[at].items for at in places], ignore_index=True)
        tables.append(
            table.assign(item=np.concatenate([numbered[outcomes[at].names] for at in places]))
        )
    lengths = np.array([len(each.items) for each in outcomes])
    joined = [at for places in alike.values() for at in places]
    order = np.argsort(np.repeat(joined, lengths[joined]), kind="stable")
    return pd.concat(tables, ignore_index=True).take(order).reset_index(drop=True)


def efficiency_table(savings: tuple[Saving, ...]) -> pd.DataFrame:
    """Two rows for each budget, the unpruned model's first, as `efficiency.csv` has them.

    Columns: `model`, `retain` (the budget that both rows belong to), `variant` (`unpruned` or
    `pruned`), `experts_kept` (of the pruned model), `parameters`, `checkpoint_bytes`,
    `weight_bytes` (in memory), `peak_bytes` (with what one batch allocates), `allocations` (what
    counted these), `prefill_...` and `decode_...` with `min`, `median` and `max` over the
    repetitions in tokens per second, `device`, `status`. A budget that failed has no figures.
    """
    import pandas as pd

    return pd.DataFrame([row for saving in savings for row in _rows(saving)])


def _rows(saving: Saving) -> Iterator[dict[str, Any]]:
    for variant in ("unpruned", "pruned"):
        footprint: Footprint | None = getattr(saving, variant)
        row: dict[str, Any] = {
            "model": saving.model,
            "retain": saving.retain,
            "variant": variant,
            "experts_kept": saving.kept,
        }
        for name in ("parameters", "checkpoint_bytes", "weight_bytes", "peak_bytes"):
            row[name] = getattr(footprint, name, None)
        row["allocations"] = saving.allocations
        for stage in ("prefill", "decode"):
            speed: Spread | None = getattr(footprint, stage, None)
            for short, long in (("min", "minimum"), ("median", "median"), ("max", "maximum")):
                row[f"{stage}_{short}"] = getattr(speed, long, None)
        yield {**row, "device": saving.device, "status": saving.status}
