"""Writes the results of a run to a folder, and reads them back.

`results.csv` holds every figure in long form, `items.parquet` every per-item outcome from which
the figures follow, and `results.json` the rest: statuses, masks, protocol and provenance, and the
checksums of itself and of the files beside it, so that no damaged byte is taken for a figure.
`scores.safetensors` has what the methods' scorers gave, each distinct array once; `results.json`
says which is whose, as it does for `stand_ins.safetensors`, what stands in for dropped experts,
where anything does. `early_items.parquet` has the items that early figures rest on, where there
are any. Where a suite measures what pruning saves, `efficiency.csv` has the figures (see
`efficiency_table`).
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mbench.core.clean_text import visible
from mbench.core.errors import Damaged, MbenchError, StoreError, nearest, one_line
from mbench.core.results import DTYPES, Results, long_form
from mbench.storage.atomic import write_atomically
from mbench.storage.early_items import EARLY_ITEMS, read_looked, write_looked
from mbench.storage.result_tables import efficiency_table, gather_items
from mbench.storage.results_json import (
    FORMAT,
    KEY,
    SCORES,
    STAND_INS,
    array_name,
    from_json,
    to_json,
)
from mbench.storage.seal import OPEN_SEAL, check, check_sha256, sealed
from mbench.storage.stand_in_arrays import arrays_of

if TYPE_CHECKING:
    import pandas as pd

CSV, ITEMS, JSON = "results.csv", "items.parquet", "results.json"
EFFICIENCY = "efficiency.csv"

RESULT_FILES = (JSON, CSV, ITEMS, EARLY_ITEMS, EFFICIENCY, SCORES, STAND_INS)
"""All that `write` may write."""


def _write(path: Path, content: bytes) -> None:
    def fill(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_atomically(path, fill)


def write(results: Results, directory: str | Path) -> None:
    """Write the files, each whole or not at all; equal results give equal bytes."""
    directory = Path(directory)
    items, dtypes = gather_items(results)
    buffer = io.BytesIO()
    items.to_parquet(buffer, index=False, compression="zstd")
    content = buffer.getvalue()
    _write(directory / ITEMS, content)
    _write(directory / CSV, to_csv(long_form(results)).encode())
    if results.efficiency:
        table = efficiency_table(results.efficiency)
        _write(directory / EFFICIENCY, to_csv(table).encode())
    else:
        (directory / EFFICIENCY).unlink(missing_ok=True)
    checksums = {"checksum": OPEN_SEAL, "items_sha256": hashlib.sha256(content).hexdigest()}
    checksums |= write_looked(directory, results)
    checksums |= _write_arrays(directory / SCORES, results.scores.values())
    stand_ins = (arrays_of(each).values() for each in results.stand_ins.values())
    checksums |= _write_arrays(directory / STAND_INS, itertools.chain.from_iterable(stand_ins))
    data = {**checksums, **to_json(results, dtypes)}
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
    _write(directory / JSON, sealed((text + "\n").encode()))


def _write_arrays(path: Path, arrays: Iterable[np.ndarray]) -> dict[str, str]:
    """Write each distinct array once, under the name by which `results.json` calls it.

    Returns the file's checksum by its name there; without arrays there is neither.
    """
    from safetensors.numpy import save

    named = {array_name(values): values for values in arrays}
    if not named:
        path.unlink(missing_ok=True)
        return {}
    content = save(named)
    _write(path, content)
    return {f"{path.stem}_sha256": hashlib.sha256(content).hexdigest()}


def _read_arrays(path: Path, data: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What `_write_arrays` wrote; nothing where there is no such file."""
    from safetensors.numpy import load

    if not data[path.stem] or not path.exists():
        return {}
    content = path.read_bytes()
    check_sha256(content, data[f"{path.stem}_sha256"])
    return load(content)


def to_csv(table: pd.DataFrame) -> str:
    """A table as CSV, with an apostrophe before text that a spreadsheet would run as a formula."""

    def cell(value: object) -> object:
        if not isinstance(value, str):
            return value
        text = visible(value)
        return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text

    texts = [name for name, dtype in table.dtypes.items() if dtype.kind not in "biufc"]
    cells = table.assign(**{str(name): table[name].map(cell) for name in texts})
    text: str = cells.to_csv(index=False)
    return text


def read(directory: str | Path) -> Results:
    """Read back what `write` wrote; metrics are derived again from the per-item outcomes.

    The files of scores and of stand-ins may be missing: no figure follows from them.

    Raises:
        StoreError: a file is missing or malformed, or another version of mbench wrote it.
    """
    import pyarrow
    import pyarrow.parquet

    directory = Path(directory)
    name = JSON
    try:
        content = (directory / JSON).read_bytes()
        data = json.loads(content)
        _check_format(directory, data)
        check(content)
        name = ITEMS
        table = (directory / ITEMS).read_bytes()
        check_sha256(table, data["items_sha256"])
        name = EARLY_ITEMS
        looked = read_looked(directory, data)
        arrays = {}
        for name in (SCORES, STAND_INS):
            arrays[name] = _read_arrays(directory / name, data)
        # Names are read as numbers of distinct names; those of columns are in `results.json`.
        file = pyarrow.BufferReader(table)
        items = pyarrow.parquet.read_table(file, read_dictionary=[*KEY, "item"])
        return from_json(data, items.to_pandas(ignore_metadata=True), looked, arrays)
    except FileNotFoundError as error:
        missing = f"no results in {directory}: {error.filename} is missing"
        raise StoreError(missing + _meant(directory)) from error
    except OSError as error:
        raise StoreError(f"cannot read results in {directory}: {one_line(error)}") from error
    except Damaged as damage:
        raise StoreError(
            f"results in {directory} are malformed: {name} is damaged ({damage}); run the suite"
            " again: nothing in the store is computed again"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"results in {directory} are malformed: {one_line(error)}") from error


def _meant(directory: Path) -> str:
    """The report that was likely meant: one within the folder, or of a like name near it."""
    within = sorted(str(path.parent) for path in directory.glob(f"*/{JSON}"))
    if within:
        return f"; did you mean {within[0]!r}?"
    near = [each for depth in ("*", "*/*") for each in directory.parent.glob(f"{depth}/{JSON}")]
    by_name = {each.parent.name: str(each.parent) for each in sorted(near, reverse=True)}
    name = nearest(directory.name, by_name)
    return f"; did you mean {by_name[name]!r}?" if name else ""


def _check_format(directory: Path, data: Mapping[str, Any]) -> None:
    written: int = data.get("format", 1)
    if written < FORMAT:
        raise StoreError(
            f"results in {directory} were written by an older mbench: run the suite again; nothing"
            " in the store is computed again"
        )
    if written > FORMAT:
        raise StoreError(f"results in {directory} were written by a newer mbench: update this one")


def load_results(path: str | Path) -> pd.DataFrame:
    """The long form of a run (see `long_form`), from its directory or its `results.csv`.

    Raises:
        MbenchError: the file is missing, cannot be read, or is not such a table.
    """
    import pandas as pd

    path = Path(path)
    if path.is_dir():
        path = path / CSV
    # Names such as "null" are names; only numbers may be missing.
    missing = {name: [""] for name, dtype in DTYPES.items() if dtype != "str"}
    try:
        table = pd.read_csv(
            path,
            dtype=DTYPES,
            keep_default_na=False,
            na_values=missing,
        )
    except FileNotFoundError as error:
        raise MbenchError(f"no results at {path}: run a suite first") from error
    except OSError as error:
        raise MbenchError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise MbenchError(f"{path} is not a table of results: {one_line(error)}") from error
    if list(table.columns) != list(DTYPES):
        expected = ", ".join(DTYPES)
        raise MbenchError(f"{path} is not a table of results: its columns must be {expected}")
    return table
