"""Writes those pages of the site that follow from the code: methods, and the public names.

A new plugin of the repository, a new method or a new public name appears by itself.
"""

from __future__ import annotations

import ast
import inspect
import re
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import mbench
from mbench.api.calls import Options
from mbench.core import hookspecs
from mbench.core.interfaces import Component, Method, Use
from mbench.plan.plugin_loading import load_registry
from mbench.plan.registry import KINDS, Registry

GROUPS = {
    "Running and reading": ("plan", "run", "scores", "ranked", "long_form", "load_results"),
    "Parts of a method": (
        *("Scorer", "Selector", "MaskBuilder", "MaskSearch", "Statistic", "Component"),
        *("Method", "Use", "Parameters", "SearchParameters"),
    ),
    "Parts that mbench has": ("TopK", "AsSelected", "RoutingSums", "CoActivation"),
}
"""Headings of the reference -> names; other names stand under their own headings."""

OTHERS = "What passes between the parts"


def write(folder: Path) -> None:
    """Write all generated pages into an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "methods").mkdir(parents=True)
    registry = load_registry()
    modules = sorted(_method_modules(registry), key=lambda module: module.__name__)
    for module in modules:
        _write(folder / "methods" / f"{_short(module)}.md", _module_page(module, registry))
    _write(folder / "methods.md", _methods_index(modules, registry))
    _write(folder / "reference.md", _reference())
    _write(folder / "hooks.md", _hooks())


def without_links_to_code(text: str) -> str:
    """Links that lead out of docs/ as the paths of the repository that they name.

    The site has no copy of the repository beside it.
    """
    return re.sub(r"\[([^\]]*)\]\(\.\./([^)#]+)[^)]*\)", _as_path, text)


def _as_path(link: re.Match[str]) -> str:
    words, path = link[1], link[2]
    if words.strip("`") in (path, path.rstrip("/")):
        return f"`{path}`"
    return f"{words} (`{path}`)"


def _write(path: Path, lines: Iterator[str]) -> None:
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def _method_modules(registry: Registry) -> set[ModuleType]:
    """Plugins of the repository that offer a method or a component."""
    kinds = ("method", *KINDS)
    return {
        origin.code
        for (kind, _), origin in registry.origins.items()
        if kind in kinds and isinstance(origin.code, ModuleType) and _is_ours(origin.code)
    }


def _is_ours(module: ModuleType) -> bool:
    return module.__name__.startswith("mbench_plugins.")


def _short(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


def _methods_index(modules: list[ModuleType], registry: Registry) -> Iterator[str]:
    yield "# Methods\n"
    yield "Every ready-made method, with the page of its formulas and sources.\n"
    yield "| method | | page |\n| --- | --- | --- |"
    for name, method in sorted(registry.methods.items()):
        code = registry.origins["method", name].code
        if isinstance(code, ModuleType) and code in modules:
            page = f"[{_short(code)}](methods/{_short(code)}.md)"
            yield f"| `{name}` | {_cell(method.description)} | {page} |"
    yield "\n```{toctree}\n:hidden:\n"
    yield from (f"methods/{_short(module)}" for module in modules)
    yield "```"


def _module_page(module: ModuleType, registry: Registry) -> Iterator[str]:
    yield f"# {_short(module).replace('_', ' ')}\n"
    yield _markdown(inspect.getdoc(module) or "")
    methods = [registry.methods[name] for name in _offered(registry, "method", module)]
    if methods:
        yield "\n## Methods\n"
        for method in methods:
            yield f"- `{method.name}`: {_parts(method)}"
            if method.description:
                yield f"  {method.description}"
    for kind in KINDS:
        for name in _offered(registry, kind, module):
            yield from _component(kind, registry.components[kind][name])


def _offered(registry: Registry, kind: str, module: ModuleType) -> list[str]:
    origins = registry.origins.items()
    return [name for (own, name), origin in origins if own == kind and origin.code is module]


def _parts(method: Method) -> str:
    """Its parts in one line."""
    parts = [
        f"{kind} {_use(part)}"
        for kind in ("scorer", "selector", "builder")
        if (part := getattr(method, kind)) is not None
    ]
    if method.candidate:
        parts.append(f"starts from `{method.candidate}`")
    if method.corpora is not None:
        corpora = {0: "looks at no text", 1: "one corpus"}
        parts.append(corpora.get(method.corpora, f"{method.corpora} corpora"))
    return ", ".join(parts) + "."


def _use(part: str | Use) -> str:
    if isinstance(part, str):
        return f"`{part}`"
    params = ", ".join(f"{key}: {value}" for key, value in part.params.items())
    return f"`{part.name}`" + (f" (`{params}`)" if params else "")


def _component(kind: str, component: type[Component]) -> Iterator[str]:
    yield f"\n## {kind} `{component.name}`\n"
    yield _markdown(inspect.getdoc(component) or "")
    fields = component.Params.model_fields
    if fields:
        said = _said_of_fields(component.Params)
        yield "\n| parameter | values | default | |\n| --- | --- | --- | --- |"
        for name, field in fields.items():
            default = "" if field.is_required() else f"`{field.get_default()!r}`"
            values, words = said.get(name, ("", ""))
            words = field.description or words
            yield f"| `{name}` | {_cell(values)} | {_cell(default)} | {_cell(words)} |"


def _said_of_fields(kind: type) -> dict[str, tuple[str, str]]:
    """Field -> its type, and the sentence below it, in a class and those that it is made of."""
    said: dict[str, tuple[str, str]] = {}
    for base in reversed([each for each in kind.__mro__ if issubclass(each, mbench.Parameters)]):
        for node, after in _with_next(base):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                said[node.target.id] = (f"`{ast.unparse(node.annotation)}`", _sentence(after))
    return said


def _hooks() -> Iterator[str]:
    yield "# Hooks\n"
    yield _markdown(inspect.getdoc(hookspecs) or "") + "\n"
    for name, function in vars(hookspecs).items():
        if name.startswith("mbench_"):
            yield f"## {name}\n\n{_signature(name, function)}\n"
            yield _markdown(inspect.getdoc(function) or "") + "\n"


def _reference() -> Iterator[str]:
    grouped = {name for names in GROUPS.values() for name in names}
    errors = [name for name in mbench.__all__ if _is_error(getattr(mbench, name))]
    rest = [name for name in mbench.__all__ if name not in grouped and name not in errors]
    yield "# Every public name\n"
    yield "What `import mbench` offers to programs and plugins; nothing below it is promised.\n"
    for heading, names in {**GROUPS, OTHERS: rest, "Errors": errors}.items():
        yield f"## {heading}\n"
        for name in names:
            yield from _entry(name, _public(name))
        if "run" in names:
            yield from _entry("Options of plan, run and scores", Options)


def _public(name: str) -> Any:
    value = getattr(mbench, name)
    return inspect.unwrap(value._function) if isinstance(value, ModuleType) else value


def _is_error(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, Exception)


def _entry(name: str, value: Any) -> Iterator[str]:
    yield f"### {name}\n"
    if inspect.isfunction(value):
        yield _signature(f"mbench.{name}", value) + "\n"
    yield _markdown(_doc(value)) + "\n"
    if inspect.isclass(value):
        yield from _members(value)


def _doc(value: Any) -> str:
    """Its own docstring: one that a library makes up says nothing."""
    text = inspect.getdoc(value) or ""
    return "" if text.startswith(f"{getattr(value, '__name__', '')}(") else text


def _members(kind: type) -> Iterator[str]:
    """Fields with the sentences below them, properties and methods, as its body has them."""
    for node, after in _with_next(kind):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if not node.target.id.startswith("_"):
                words = _sentence(after)
                annotation = ast.unparse(node.annotation)
                yield f"- `{node.target.id}: {annotation}`" + (f": {words}" if words else "")
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            words = " ".join((ast.get_docstring(node) or "").split())
            returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
            is_property = any(ast.unparse(each) == "property" for each in node.decorator_list)
            head = f"{node.name}{returns}"
            if not is_property:
                head = f"{node.name}({ast.unparse(node.args)}){returns}"
            yield f"- `{head}`: {words}"
    yield ""


def _with_next(kind: type) -> Iterator[tuple[ast.stmt, ast.stmt | None]]:
    """The statements of a class's body, each with the one after it."""
    node = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(node, ast.ClassDef)
    yield from zip(node.body, [*node.body[1:], None], strict=True)


def _sentence(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return " ".join(str(node.value.value).split())
    return ""


def _signature(name: str, function: Any) -> str:
    """As its source has it, without the quotes of annotations that are not evaluated."""
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(node, ast.FunctionDef)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"```python\n{name}({ast.unparse(node.args)}){returns}\n```"


SECTION = re.compile(r"^(Args|Returns|Raises|Yields):$")


def _markdown(docstring: str) -> str:
    """A docstring as Markdown: its lists of arguments and errors become lists."""
    lines: list[str] = []
    inside = False
    for line in docstring.split("\n"):
        if SECTION.match(line):
            inside = True
            lines += ["", f"**{line.removesuffix(':')}**", ""]
        elif inside and re.match(r" {4}\S+: ", line):
            name, _, words = line.strip().partition(": ")
            lines.append(f"- `{name}`: {words}")
        elif inside:
            lines.append(line.strip() if not line.startswith(" " * 8) else f"  {line.strip()}")
        else:
            lines.append(line)
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
