"""Compares what is here with a lock, and refuses by name what is not as the lock has it."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mbench.core.errors import SuiteError
from mbench.core.provenance import release
from mbench.plan.computing_code import installed_code
from mbench.plan.lock import Lock, LockedFile
from mbench.storage.file_hash import file_hash
from mbench.storage.store import Store


def refuse_options(path: Path, given: Sequence[str]) -> None:
    """Raise `SuiteError` for options that would make it another suite."""
    if given:
        raise SuiteError(f"{path}: a lock is run as it is: leave out {given[0]}")


def refuse_other_code(path: Path, lock: Lock) -> None:
    """Raise `SuiteError` where mbench or a package that decides figures is another one."""
    locked = lock.versions
    for package, wanted in locked.packages.items():
        try:
            here = release(version(package))
        except PackageNotFoundError:
            here = "not installed"
        if here != wanted:
            how = (
                f"uninstall {package}"
                if wanted == "not installed"
                else f"install {package}=={wanted}"
            )
            raise SuiteError(
                f"{path}: {package} is {wanted} in the lock, and {here} here: pip {how}"
            )
    code = installed_code().hashes
    for part in sorted(locked.code.keys() | code.keys()):
        if locked.code.get(part) != code.get(part):
            raise SuiteError(
                f"{path}: mbench's code in {part} is another than that of the lock, which mbench"
                f" {locked.mbench} wrote (here: {version('mbench')}): install that version"
            )


def python_note(lock: Lock) -> str:
    """A sentence where Python is another one, which may change the last digits; or "" ."""
    here = platform.python_version()
    if lock.versions.python == here:
        return ""
    return f"the lock was written under Python {lock.versions.python}, this is {here}"


def locked_plugins(path: Path, lock: Lock, given: Sequence[Path]) -> list[Path]:
    """The plugin files of the lock, as given with --plugin or where they were.

    Raises `SuiteError` for one that is missing or another, or that the lock does not have.
    """
    by_name = {file.name: file for file in given}
    found = []
    for recorded, expected in lock.plugins.items():
        file = by_name.get(Path(recorded).name, Path(recorded).expanduser())
        if not file.is_file():
            beside = [each.parent / file.name for each in given]
            file = next((each for each in beside if each.is_file()), file)
        if not file.is_file():
            raise SuiteError(
                f"{path}: the plugin file {recorded} is missing: give it with --plugin FILE.py"
            )
        _refuse_another(path, str(file), file, expected.file, None)
        found += [file] if expected.given else []
    names = {Path(recorded).name for recorded in lock.plugins}
    for file in given:
        if file.name not in names:
            raise SuiteError(f"{path}: a lock is run as it is: leave out --plugin {file}")
    return found


def refuse_other_files(path: Path, lock: Lock, store: Store) -> None:
    """Raise `SuiteError` for the first file that is missing or has other content."""
    for recorded, expected in lock.files.items():
        _refuse_another(path, recorded, Path(recorded).expanduser(), expected, store)


def _refuse_another(
    path: Path, name: str, file: Path, expected: LockedFile, store: Store | None
) -> None:
    try:
        found = file_hash(file, store)
    except OSError as error:
        reason = error.strerror or "cannot be read"
        if isinstance(error, FileNotFoundError) and not file.is_absolute():
            reason += " (paths of a lock start at the working directory)"
        raise SuiteError(
            f"{path}: {name}: {reason}; the lock has sha256 {expected.sha256}"
        ) from None
    if found != expected.sha256:
        raise SuiteError(
            f"{path}: {name} is another file than in the lock: expected sha256 {expected.sha256},"
            f" found {found}"
        )


def refuse_another_plan(path: Path, lock: Lock, here: Lock) -> None:
    """Raise `SuiteError` for the first thing that is planned in another way than in the lock."""
    for what, name in (
        ("the code of the", "components"),
        ("the model", "models"),
        ("the corpus", "corpora"),
        ("the task", "tasks"),
    ):
        locked: Mapping[str, str] = getattr(lock.identities, name)
        found: Mapping[str, str] = getattr(here.identities, name)
        for key in locked.keys() | found.keys():
            if locked.get(key) != found.get(key):
                raise SuiteError(
                    f"{path}: {what} {key} is another than in the lock, though its version and"
                    " files are the same: an installed plugin was changed"
                )
