"""Which files of a dataset hold which split, and its rows, read from these files alone."""

from __future__ import annotations

import dataclasses
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbench.core.errors import MbenchError, unknown
from mbench.core.replaced import replaced
from mbench.storage.hub.answers import HubRefusal, Say, readable
from mbench.storage.hub.fetch import fetch, refuse_outside
from mbench.storage.hub.repository import Repository, recall
from mbench.storage.records import to_plain
from mbench.storage.store import Key, Store

if TYPE_CHECKING:
    import datasets

METADATA = ("README.md", ".huggingface.yaml", "dataset_infos.json")
"""Files that say which subsets there are, which files they have and what their columns are."""

BATCH = 1000
"""Rows."""

BUILDERS = ("parquet", "json", "csv", "text", "arrow")
"""The readers of the datasets library whose rows may be text."""


@dataclass(frozen=True)
class DatasetFiles:
    """How the datasets library would read a subset of a dataset."""

    builder: str
    """Its reader, one of `BUILDERS`."""
    options: Mapping[str, object]
    """Of the reader, as plain values; what is left out is as the library has it."""
    features: str | None
    """Types of the columns as JSON, in their order, where the dataset declares them."""
    files: Mapping[str, tuple[str, ...]]
    """Names of files in their order, by split."""

    def names(self, split: str) -> tuple[str, ...]:
        """The files of a split, or of several like `train[:10%]+test`; raises `HubRefusal`."""
        return tuple(name for names in self.only(split).values() for name in names)

    def only(self, split: str) -> Mapping[str, tuple[str, ...]]:
        """The files by split of those splits that this one is made of; raises `HubRefusal`."""
        return {part: self.files[part] for part in self.parts(split)}

    def parts(self, split: str) -> list[str]:
        """The splits that this one is made of, in order; raises `HubRefusal`."""
        if split == "all":
            return list(self.files)
        names = [re.split(r"[\[(]", part)[0].strip() for part in split.split("+")]
        for name in names:
            if name not in self.files:
                raise HubRefusal(unknown("split", name, self.files))
        return names


def dataset_files(
    repository: Repository,
    subset: str | None,
    store: Store | None,
    *,
    data_files: Any = None,
    data_dir: str | None = None,
    options: Mapping[str, Any] | None = None,
    say: Say,
) -> DatasetFiles:
    """Return which files `datasets.load_dataset` reads for a subset, as the library itself finds.

    It looks at a folder that has the names of all files, and the content of `METADATA` alone, so
    nothing else is fetched. `store` remembers what it found.

    Args:
        repository: of the dataset.
        subset: name of a configuration; None is the default one.
        store: where to remember.
        data_files: as `load_dataset` takes them: only files that match.
        data_dir: only this folder.
        options: further arguments of `load_dataset`, which it hands to the reader.
        say: is told why it takes long.

    Raises:
        HubRefusal: there is no such subset, no data that could be text, or a script in their place.
    """
    import datasets

    asked = {"subset": subset, "data_files": data_files, "data_dir": data_dir}
    asked["options"] = dict(options or {})
    made_by = {"kind": "dataset", "name": repository.name, "commit": repository.commit, **asked}
    key = Key.of("facts", f"files of {repository}", {**made_by, "datasets": datasets.__version__})
    stored = recall(DatasetFiles, key, store)
    if stored is not None:
        return stored
    script = f"{repository.name.split('/')[-1]}.py"
    if repository.has(script):
        raise HubRefusal(
            f"{repository} is made by a script, {script}, which is not run; many such datasets have"
            " their rows as files too, at the revision refs/convert/parquet"
        )
    names = [name for name in METADATA if repository.has(name)]
    metadata = fetch(repository, names, store, say=say)
    for file in repository.files:
        refuse_outside(repository, file.name)
    with tempfile.TemporaryDirectory() as temporary, _in_one_line(repository, temporary):
        folder = Path(temporary, "data", repository.name.split("/")[-1]).resolve()
        folder.mkdir(parents=True)
        for file in repository.files:
            path = folder / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((metadata / file.name).read_bytes() if file.name in names else b"")
        arguments = {"data_files": data_files, "data_dir": data_dir, **(options or {})}
        found = _found(folder, subset, arguments, cache=Path(temporary, "cache"))
    if store is not None:
        store.write_json(key, to_plain(found))
    return found


def open_dataset(
    folder: Path, files: DatasetFiles, split: str, *, of: object = "the dataset"
) -> datasets.Dataset:
    """Return the rows of a split in memory, from the files of `files.names(split)` below `folder`.

    They are read anew each time, so that no older copy of them is served. Nothing is asked of the
    hub, nothing stays on disk. `of` is what errors name.

    Raises:
        HubRefusal: there is no such split, or the files cannot be read.
    """
    with tempfile.TemporaryDirectory() as temporary, _in_one_line(of, str(folder)):
        wanted = files.only(split)
        builder = _builder(folder, files, wanted, temporary)
        with _without_progress():
            try:
                builder.download_and_prepare()
            except Exception:
                _name_the_damaged(folder, files, wanted, temporary)
                raise
        return builder.as_dataset(split=split, in_memory=True)


def batches(
    folder: Path, files: DatasetFiles, split: str, *, of: object = "the dataset"
) -> Iterator[Mapping[str, list[Any]]]:
    """Yield the rows of a split as `open_dataset` has them, by column, `BATCH` rows at a time.

    Files are read as far as the caller goes on, unless the split is a part like `train[:10%]`.
    """
    if "[" in split or "(" in split:
        yield from open_dataset(folder, files, split, of=of).iter(BATCH)
        return
    with tempfile.TemporaryDirectory() as temporary, _in_one_line(of, str(folder)):
        for part in files.parts(split):
            for name in files.files[part]:
                with _in_one_line(f"file {name}", str(folder)):
                    alone = _builder(folder, files, {part: (name,)}, temporary)
                    yield from alone.as_streaming_dataset(split=part).iter(BATCH)


def _builder(
    folder: Path, files: DatasetFiles, wanted: Mapping[str, tuple[str, ...]], cache: str
) -> Any:
    import datasets
    from datasets.data_files import DataFilesDict, DataFilesList
    from datasets.load import import_main_class
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    local = {
        part: DataFilesList([str(folder / name) for name in names], [(part,)] * len(names))
        for part, names in wanted.items()
    }
    reader: Any = import_main_class(_PACKAGED_DATASETS_MODULES[files.builder][0])
    builder = reader(cache_dir=cache, data_files=DataFilesDict(local), **files.options)
    if files.features is not None:
        builder.info.features = datasets.Features.from_dict(json.loads(files.features))
    return builder


def _name_the_damaged(
    folder: Path, files: DatasetFiles, wanted: Mapping[str, tuple[str, ...]], cache: str
) -> None:
    """Raise `HubRefusal` for the first file that cannot be read by itself, if there is one."""
    for part, names in wanted.items():
        for name in names:
            with _in_one_line(f"file {name}", str(folder)):
                alone = _builder(folder, files, {part: (name,)}, cache)
                for _batch in alone.as_streaming_dataset(split=part).iter(BATCH):
                    pass


def _found(
    folder: Path, subset: str | None, arguments: dict[str, Any], cache: Path
) -> DatasetFiles:
    import datasets

    with replaced(datasets.config, "HF_HUB_OFFLINE", True), _inside(folder):
        try:
            builder = datasets.load_dataset_builder(
                str(folder), subset, cache_dir=str(cache), **arguments
            )
        except ValueError as error:
            subsets = datasets.get_dataset_config_names(str(folder))
            if subset is not None and subset not in subsets:
                raise HubRefusal(unknown("subset", subset, subsets)) from error
            if subset is None and len(subsets) > 1:
                listed = ", ".join(sorted(subsets))
                raise HubRefusal(f"name one of its subsets: {listed}") from error
            raise
    if builder.name not in BUILDERS:
        valid = ", ".join(BUILDERS)
        raise HubRefusal(f"its data are read as {builder.name!r}, which is no text ({valid} are)")
    chosen = {}
    usual = builder.BUILDER_CONFIG_CLASS()
    for field in dataclasses.fields(usual):
        value = getattr(builder.config, field.name)
        if field.name not in _OF_LIBRARY and value != getattr(usual, field.name):
            chosen[field.name] = json.loads(json.dumps(value))
    declared = builder.info.features
    files = {
        str(split): tuple(Path(path).relative_to(folder).as_posix() for path in paths)
        for split, paths in (builder.config.data_files or {}).items()
    }
    features = None if declared is None else json.dumps(declared.to_dict())
    return DatasetFiles(builder.name, chosen, features, files)


_OF_LIBRARY = ("name", "version", "data_dir", "data_files", "description")
"""What every reader has, and what says which files it reads."""


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Refuse files that a suite or a README names outside of the repository."""
    from datasets import data_files

    resolve = data_files.resolve_pattern

    def resolve_inside(pattern: str, *arguments: Any, **options: Any) -> list[str]:
        remote = "://" in pattern or "::" in pattern
        paths = [] if remote else [str(path) for path in resolve(pattern, *arguments, **options)]
        if remote or not all(Path(path).resolve().is_relative_to(folder) for path in paths):
            raise HubRefusal(f"its data file {pattern!r} lies outside of the repository: refused")
        return paths

    with replaced(data_files, "resolve_pattern", resolve_inside):
        yield


@contextmanager
def _without_progress() -> Iterator[None]:
    import datasets

    shown = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not shown:
            datasets.enable_progress_bars()


@contextmanager
def _in_one_line(what: object, folder: str) -> Iterator[None]:
    """Name the dataset in front of what the library raises, and leave out where its files lie."""
    try:
        yield
    except HubRefusal as error:
        raise HubRefusal(f"{what}: {error}") from error
    except MbenchError:
        raise
    except Exception as error:
        cause = error.__cause__ or error.__context__
        wrapped = type(error).__name__ == "DatasetGenerationError" and cause is not None
        real = cause if wrapped and cause is not None else error
        lines = str(real).strip().splitlines() or [""]
        text = re.sub(rf"[^\s'\"]*{re.escape(folder)}(/data/[^/\s'\"]+)?/?", "", lines[0])
        raise HubRefusal(f"{what}: {_plain(real, text)}") from error


def _plain(error: BaseException, text: str) -> str:
    """What the library says, in plain words where the user can do something about it."""
    kind = type(error).__name__
    if kind in ("EmptyDatasetError", "DataFilesNotFoundError"):
        return "it has no files of a kind that can be read"
    if kind == "BadZipFile":
        return "its files are in an archive, which is not read"
    if type(error).__module__.startswith("yaml"):
        return f"its README.md cannot be read ({readable(text)})"
    pattern = re.search(r"Unable to find '?([^']*?)'? (with|in)\b", text)
    if pattern is not None:
        return f"it has no file {pattern[1]!r} of a kind that can be read"
    option = re.search(r"doesn't have a ('\w+') key", text)
    if option is not None:
        return f"the library's reader of its files has no option {option[1]}"
    return f"{kind}: {readable(text)}"
