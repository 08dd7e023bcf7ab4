"""Lets tasks load their data from disk alone, whatever calls `datasets.load_dataset`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets

from mbench.core.replaced import replaced
from mbench.evaluate.lm_eval.task_data import Call, LeafData
from mbench.evaluate.lm_eval.task_files import LOCAL_FORMATS
from mbench.storage.hub.answers import HubRefusal
from mbench.storage.hub_dataset import HubDataset

_load_dataset = datasets.load_dataset

_fetched: dict[Call, HubDataset] = {}
"""What may be loaded now. Modules of tasks keep the function below for as long as they live."""


@contextmanager
def loaded_from(data: Sequence[LeafData]) -> Iterator[None]:
    """Give these datasets, and files of this machine, to whoever calls `datasets.load_dataset`."""
    before = dict(_fetched)
    _fetched.clear()
    _fetched.update((each.call, each.dataset) for each in data if each.call and each.dataset)
    try:
        with replaced(datasets, "load_dataset", _load):
            yield
    finally:
        _fetched.clear()
        _fetched.update(before)


def _load(path: Any, name: str | None = None, *others: Any, **options: Any) -> Any:
    """In the place of `datasets.load_dataset`; raises `HubRefusal` for what was not fetched."""
    fetched = _fetched.get(Call.of(path, name, options))
    if fetched is not None:
        return fetched.splits()
    elsewhere = "://" in str(options.get("data_files"))
    if (path in LOCAL_FORMATS or Path(path).exists()) and not elsewhere:
        # An older copy in the usual cache might be taken for the files, or be damaged.
        with tempfile.TemporaryDirectory() as cache:
            options |= {"cache_dir": cache, "keep_in_memory": True}
            return _load_dataset(path, name, *others, **options)
    dataset = "/".join(str(part) for part in (path, name) if part)
    raise HubRefusal(
        f"code of its own needs the dataset {dataset}, which so cannot be resolved once and"
        " compared: write a task file whose dataset_path names it"
    )
