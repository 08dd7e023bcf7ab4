"""The data behind a task: files of this machine, or datasets of the hub at a commit."""

from __future__ import annotations

import ast
import glob
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbench.core.errors import TaskError
from mbench.evaluate.lm_eval import task_files
from mbench.evaluate.lm_eval.leaves import Leaf, leaves
from mbench.evaluate.lm_eval.task_files import module_of
from mbench.evaluate.lm_eval.task_yaml import Function
from mbench.storage.file_hash import file_hash
from mbench.storage.hub.answers import HubRefusal
from mbench.storage.hub_dataset import HubDataset
from mbench.storage.inputs import Inputs

NO_DATA = frozenset(
    {
        "trust_remote_code",
        "verification_mode",
        "streaming",
        "keep_in_memory",
        "num_proc",
        "cache_dir",
        "download_mode",
        "save_infos",
    }
)
"""Arguments of `datasets.load_dataset` that change no row."""

FETCHING = frozenset(
    {
        "load_dataset",
        "hf_hub_download",
        "snapshot_download",
        "urlopen",
        "urlretrieve",
        "requests",
        "httpx",
        "DATASET_PATH",
    }
)
"""Names by which code shows that it fetches data by itself."""

_ON_HUB = re.compile(r"hf://datasets/([^/@]+/[^/@]+)(?:@([^/]+))?/(.+)")


@dataclass(frozen=True)
class Call:
    """What `datasets.load_dataset` is asked for."""

    path: str
    name: str | None
    options: str
    """All other arguments that decide rows, as JSON."""

    @classmethod
    def of(cls, path: Any, name: Any, options: Mapping[str, Any]) -> Call:
        """The call with these arguments; None counts as left out."""
        others = {k: v for k, v in options.items() if k not in NO_DATA and v is not None}
        return cls(str(path), name, json.dumps(others, sort_keys=True, default=str))


@dataclass(frozen=True)
class LeafData:
    """The data of one leaf; without files and dataset where its code makes them."""

    files: Mapping[str, tuple[Path, ...]]
    """Of this machine, by split; a folder's under an empty name."""
    call: Call | None = None
    dataset: HubDataset | None = None

    def identity(self, inputs: Inputs) -> Mapping[str, Any]:
        """What decides the rows; raises `TaskError` where a file cannot be read."""
        if self.dataset is not None:
            try:
                return self.dataset.identity()
            except HubRefusal as error:
                raise TaskError(str(error)) from error
        return {
            split: [_digest(path, inputs) for path in paths] for split, paths in self.files.items()
        }


def data_of(name: str, directories: Sequence[Path], inputs: Inputs) -> tuple[LeafData, ...]:
    """The data of all tasks that a name stands for, in lm-eval's order; nothing is read yet.

    Raises:
        TaskError: as `leaves`, a file or dataset is not there, or the task's code fetches its data
            by itself.
    """
    return tuple(_data(leaf, inputs) for leaf in leaves(name, directories))


def _data(leaf: Leaf, inputs: Inputs) -> LeafData:
    path, name = leaf.config.get("dataset_path"), leaf.config.get("dataset_name")
    _refuse_fetching(leaf)
    if leaf.config.get("custom_dataset") or not path:
        return LeafData({})
    options = dict(leaf.config.get("dataset_kwargs") or {})
    call = Call.of(path, name, options)
    if path in task_files.LOCAL_FORMATS:
        return _of_local_format(leaf, call, options, inputs)
    if Path(path).exists():
        return LeafData({"": _below(Path(path))}, call)
    wanted = {key: value for key, value in options.items() if key not in NO_DATA}
    try:
        repository = inputs.repository("dataset", str(path), wanted.pop("revision", None))
        files = inputs.reading(
            repository,
            name,
            data_files=wanted.pop("data_files", None),
            data_dir=wanted.pop("data_dir", None),
            options=wanted,
        )
        return LeafData({}, call, HubDataset(inputs, repository, files))
    except HubRefusal as error:
        raise TaskError(
            f"task {leaf.name!r}: {error}; `directory` can name a folder of task files whose"
            " data_files are local"
        ) from error


def _of_local_format(
    leaf: Leaf, call: Call, options: Mapping[str, Any], inputs: Inputs
) -> LeafData:
    folder = options.get("data_dir")
    if options.get("data_files") is None:
        return LeafData({"": _below(Path(folder).expanduser())} if folder else {}, call)
    located = task_files.locate(leaf.config, leaf.chain) or {}
    addresses = [part for parts in located.values() for part in parts if "://" in part]
    if addresses:
        # As `locate` hands them on.
        call = Call.of(call.path, call.name, {**options, "data_files": located})
        return LeafData({}, call, _addressed(leaf, located, inputs))
    return LeafData(
        {
            split: tuple(
                Path(part)
                for pattern in patterns
                for part in (sorted(glob.glob(pattern, recursive=True)) or [pattern])
            )
            for split, patterns in located.items()
        },
        call,
    )


def _addressed(leaf: Leaf, located: Mapping[str, list[str]], inputs: Inputs) -> HubDataset:
    """The files of one dataset that addresses like `hf://datasets/owner/name/file` name."""
    places = {}
    for split, parts in located.items():
        matches = [_ON_HUB.fullmatch(part) for part in parts]
        for part, match in zip(parts, matches, strict=True):
            if match is None:
                raise TaskError(
                    f"task {leaf.name!r}: {part}: only files of this machine and of the hub"
                    " (hf://datasets/OWNER/NAME/FILE) can be fetched once and compared: save it to"
                    " a file"
                )
        places[split] = [match.groups() for match in matches if match is not None]
    repositories = {(name, revision) for parts in places.values() for name, revision, _ in parts}
    if len(repositories) > 1:
        raise TaskError(f"task {leaf.name!r}: its data_files are of {len(repositories)} datasets")
    ((name, revision),) = repositories
    files = {split: [file for _, _, file in parts] for split, parts in places.items()}
    try:
        repository = inputs.repository("dataset", name, revision)
        return HubDataset(inputs, repository, inputs.reading(repository, None, data_files=files))
    except HubRefusal as error:
        raise TaskError(f"task {leaf.name!r}: {error}") from error


def _below(place: Path) -> tuple[Path, ...]:
    """A file, or all files below a folder."""
    if place.is_file():
        return (place,)
    return tuple(sorted(path for path in place.rglob("*") if path.is_file()))


def _digest(path: Path, inputs: Inputs) -> str:
    try:
        return file_hash(path, inputs.store)
    except OSError as error:
        raise TaskError(f"{path}: {error.strerror or 'cannot be read'}") from error


def _refuse_fetching(leaf: Leaf) -> None:
    """Refuse a task whose own code loads its data from elsewhere, as far as the code shows it."""
    for key in ("custom_dataset", "class"):
        function = leaf.config.get(key)
        if not isinstance(function, Function):
            continue
        try:
            tree = ast.parse(module_of(function).read_bytes())
        except (SyntaxError, ValueError, OSError):
            continue  # said when it is loaded
        for node in ast.walk(tree):
            names = _names(node) & FETCHING
            if names:
                raise TaskError(
                    f"task {leaf.name!r} fetches its data by code of its own"
                    f" ({function.reference}: {names.pop()}), which cannot be resolved once and"
                    " compared: write a task file whose dataset_path or data_files names them"
                )


def _names(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Name):
        return {node.id}
    if isinstance(node, ast.Attribute):
        return {node.attr}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
    return set()
