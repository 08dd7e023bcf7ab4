"""The file of the items that early figures rest on, and of the order that items were drawn in."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbench.core.results import Results
from mbench.storage.atomic import write_atomically
from mbench.storage.results_json import KEY
from mbench.storage.seal import check_sha256

if TYPE_CHECKING:
    import pandas as pd

EARLY_ITEMS = "early_items.parquet"

COLUMNS = {"item": "str", "unit": "int32", "look": "int8", "value": "float64"}
"""As `CellResult.looked` has them."""

CHECKSUM = "early_items_sha256"


def write_looked(directory: Path, results: Results) -> dict[str, str]:
    """Write every `CellResult.looked`, equal masks once; returns the checksum by its name.

    Without any there is no file.
    """
    import pandas as pd

    tables: dict[tuple[str, ...], pd.DataFrame] = {}
    for cell in results.cells:
        for task, own in cell.looked.items():
            tables.setdefault((cell.model, cell.router, cell.mask, task), own)
    path = directory / EARLY_ITEMS
    if not tables:
        path.unlink(missing_ok=True)
        return {}
    named = [own.assign(**dict(zip(KEY, key, strict=True))) for key, own in tables.items()]
    joined = pd.concat(named, ignore_index=True)[[*KEY, *COLUMNS]]
    for name in (*KEY, "item"):
        joined[name] = joined[name].astype("category")
    buffer = io.BytesIO()
    joined.to_parquet(buffer, index=False, compression="zstd")
    content = buffer.getvalue()
    write_atomically(path, lambda temporary: temporary.write_bytes(content))
    return {CHECKSUM: hashlib.sha256(content).hexdigest()}


def read_looked(directory: Path, data: Mapping[str, Any]) -> dict[tuple[str, ...], pd.DataFrame]:
    """(model, router, mask, task) -> what `write_looked` wrote, by the checksum in `data`.

    Raises `Damaged` for other bytes, and `OSError` where the file is missing.
    """
    import pandas as pd

    if CHECKSUM not in data:
        return {}
    content = (directory / EARLY_ITEMS).read_bytes()
    check_sha256(content, data[CHECKSUM])
    table = pd.read_parquet(io.BytesIO(content))
    return {
        key: own[list(COLUMNS)].astype(COLUMNS).reset_index(drop=True)
        for key, own in table.groupby(KEY, sort=False, observed=True)
    }
