"""The code that figures come from: components with all they import, and folders of mbench.

A changed method must never meet its old masks. A component's source is therefore its own module
and, in turn, every module that these import: sub-packages, files beside a `--plugin` file and
other distributions alike. What mbench itself depends on (numpy, torch, ...) counts by its version
instead of its content, and the standard library and mbench not at all. Imports are read from the
files, those inside functions too; a name that is put together at run time cannot be seen, nor can
data files.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES
from pathlib import Path
from types import ModuleType

from mbench.core.provenance import release
from mbench.storage.distributions import (
    DISTRIBUTION,
    distribution_of,
    is_required,
    place_of,
    top_level,
    version_of,
)
from mbench.storage.loaded_code import refuse_changed
from mbench.storage.typed_code import TypedCode

Root = ModuleType | TypedCode
"""Where a component's code begins."""


@dataclass(frozen=True)
class Source:
    """The code of one component."""

    sha256: str
    """Of all its modules' names and contents, wherever they are installed."""
    distributions: Mapping[str, str]
    """Name -> version of the installed distributions that these modules import."""


def source_of(roots: Iterable[Root]) -> Source:
    """The modules, and what was typed, with everything they import (see above)."""
    return _source(*_reached_from(roots := list(roots)), roots)


def _source(
    files: Mapping[Path, str], distributions: Mapping[str, str], roots: Iterable[Root]
) -> Source:
    typed = [root for root in roots if isinstance(root, TypedCode)]
    lines = [f"{name}\0{_file_hash(path)}\n" for path, name in files.items()]
    lines = sorted([*lines, *(f"{root.name}\0{root.sha256}\n" for root in typed)])
    return Source(
        hashlib.sha256("".join(lines).encode()).hexdigest(), dict(sorted(distributions.items()))
    )


def source_of_loaded(roots: Iterable[Root]) -> Source:
    """The source by which this process computes.

    Raises `PluginError` for a file that was edited after it was loaded.
    """
    roots = list(roots)
    files, distributions = _reached_from(roots)
    modules = [root for root in roots if isinstance(root, ModuleType)]
    for module in {*modules, *_loaded(files)}:
        refuse_changed(module, _file(module), _file_hash(_file(module)))
    return _source(files, distributions, roots)


def _reached_from(roots: Iterable[Root]) -> tuple[dict[Path, str], dict[str, str]]:
    roots = list(roots)
    modules = [root for root in roots if isinstance(root, ModuleType)]
    return _reached(
        [(_root_name(module), _file(module), module.__package__ or "") for module in modules],
        [name for root in roots if isinstance(root, TypedCode) for name in root.imports],
    )


def _loaded(files: Mapping[Path, str]) -> Iterator[ModuleType]:
    """Modules of this process that come from these files of Python."""
    for path, name in files.items():
        module = sys.modules.get(name)
        if module is not None and path.suffix == ".py" and _file(module) == path:
            yield module


def files_behind(path: Path) -> frozenset[Path]:
    """A Python file, and those that it imports in turn."""
    files, _ = _reached([(path.stem, path, "")])
    return frozenset(files)


def _reached(
    roots: Iterable[tuple[str, Path, str]], names: Iterable[str] = ()
) -> tuple[dict[Path, str], dict[str, str]]:
    """File -> module of all that the roots (module, file, package) import; and distributions.

    `names` are imported by what is in no file.
    """
    files: dict[Path, str] = {}
    distributions: dict[str, str] = {}
    pending = list(roots)
    for imported in names:
        pending += _followed(imported, distributions)
    while pending:
        name, path, package = pending.pop()
        if path in files:
            continue
        files[path] = name
        for imported in _imports(path, package):
            pending += _followed(imported, distributions)
    return files, distributions


def _followed(imported: str, distributions: dict[str, str]) -> list[tuple[str, Path, str]]:
    """The modules (name, file, package) that an import runs, as far as their content counts.

    The distribution that it belongs to is added to `distributions`.
    """
    top = imported.partition(".")[0]
    if top in sys.stdlib_module_names or top == DISTRIBUTION:
        return []
    reached = list(_modules_on_the_way(imported))
    distribution = "" if top in top_level(DISTRIBUTION) else distribution_of(top)
    if distribution and reached and not _belongs(reached[0][1], distribution):
        distribution = ""  # a file that only bears the distribution's name
    if distribution:
        distributions[distribution] = release(version_of(distribution))
    if distribution and is_required(distribution):
        return []
    if not reached and not distribution:
        # An optional import; what the component does may change once it is installed.
        distributions[top] = "not installed"
    return reached


def _belongs(path: Path, distribution: str) -> bool:
    """Whether a module lies where its distribution is installed."""
    place = place_of(distribution)
    return path.is_relative_to(place.resolve()) or path.is_relative_to(place)


def _root_name(module: ModuleType) -> str:
    """A single file goes by its own name: where it lies changes nothing."""
    return module.__name__ if module.__package__ else _file(module).stem


def _file(module: ModuleType) -> Path:
    return Path(module.__file__ or "")


def _imports(path: Path, package: str) -> Iterator[str]:
    """Dotted names that a Python file imports, each of which may be a module or what it holds."""
    return iter(_imported_by(path.read_bytes(), package) if path.suffix == ".py" else ())


@cache
def _imported_by(code: bytes, package: str) -> tuple[str, ...]:
    """Of one content only once: the components of a suite import each other's modules."""
    try:
        return tuple(_imports_in(ast.parse(code), package))
    except (SyntaxError, ValueError):
        return ()  # for another Python: it cannot be imported here


def _imports_in(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level and not package:
                continue  # in a file that belongs to no package, as far as one knows
            if node.level:
                parts = package.split(".")
                above = parts[: len(parts) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call):
            yield from _imported_by_call(node, package)


def _imported_by_call(node: ast.Call, package: str) -> Iterator[str]:
    """The module that `importlib.import_module("a.b")` or `__import__("a")` names outright."""
    called = node.func.attr if isinstance(node.func, ast.Attribute) else None
    called = node.func.id if isinstance(node.func, ast.Name) else called
    if called not in ("import_module", "__import__") or not node.args:
        return
    first = node.args[0]
    if isinstance(first, ast.Constant) and isinstance(first.value, str):
        name = first.value
        with contextlib.suppress(ImportError):
            yield importlib.util.resolve_name(name, package) if name.startswith(".") else name


def imported_names(path: Path) -> frozenset[str]:
    """First parts of the names that a Python file imports."""
    return frozenset(name.partition(".")[0] for name in _imports(path, ""))


def _modules_on_the_way(name: str) -> Iterator[tuple[str, Path, str]]:
    """(name, file, package) of every module that importing `a.b.c` runs: a, a.b and a.b.c.

    Only the first is looked up by Python's own means, which would run it to find those below.
    """
    top, *rest = name.split(".")
    loaded = sys.modules.get(top)
    try:
        spec = loaded.__spec__ if loaded is not None else importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return
    if spec is None:
        return
    # A package may have changed where its modules lie.
    searched = getattr(loaded, "__path__", None) or spec.submodule_search_locations or ()
    places = [Path(place) for place in searched]
    if spec.origin is not None and Path(spec.origin).is_file():
        yield top, Path(spec.origin), top if places else ""
    path_so_far = top
    for part in rest:
        module = next((found for place in places if (found := _submodule(place, part))), None)
        if module is None:
            return
        package = path_so_far
        path_so_far = f"{path_so_far}.{part}"
        places = [module.parent] if module.name.startswith("__init__.") else []
        if module.is_file():
            yield path_so_far, module, path_so_far if places else package
        else:  # a folder without an `__init__.py`
            places = [module]


def _submodule(folder: Path, name: str) -> Path | None:
    """The file of a module in a package's folder, or the folder of a package without a file."""
    suffixes = (*EXTENSION_SUFFIXES, *SOURCE_SUFFIXES)  # in the order in which Python looks
    files = [folder / name / f"__init__{suffix}" for suffix in suffixes]
    files += [folder / f"{name}{suffix}" for suffix in suffixes]
    below = folder / name
    return next((path for path in files if path.is_file()), below if below.is_dir() else None)


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_hash(place: Path) -> str:
    """sha256 of a Python file, or of the names and contents of all those below a folder."""
    if place.is_file():
        return _file_hash(place)
    folder = place
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).as_posix()):
        name = path.relative_to(folder).as_posix()
        digest.update(f"{name}\0{_file_hash(path)}\n".encode())
    return digest.hexdigest()
