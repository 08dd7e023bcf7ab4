"""Vega-Lite specifications as SVG text, compiled in the background while a page is computed."""

from __future__ import annotations

import atexit
import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from markupsafe import Markup

from mbench.core.clean_text import visible
from mbench.report.charts.compiler import Compiler, NoPicture

GEOMETRY = frozenset(("d", "transform", "x1", "x2", "y1", "y2", "width", "height"))
INHERITED = frozenset(
    ("fill", "fill-opacity", "stroke", "stroke-opacity", "stroke-width", "stroke-dasharray",
     "font-family", "font-size", "font-weight", "text-anchor")
)  # fmt: skip
KEPT = GEOMETRY | INHERITED | {"opacity", "stroke-linecap", "stroke-linejoin", "stroke-miterlimit"}
TITLED = frozenset(("path", "line"))
"""Elements that get a tooltip."""


@dataclass(frozen=True)
class Drawing:
    """A chart that is being compiled; a template that inserts it waits for it."""

    svg: Future[str]
    description: str
    """What it shows, in words, which stand in its place where there is no picture."""

    def __html__(self) -> str:
        try:
            return self.svg.result()
        except NoPicture as error:
            text = f"No picture: {visible(str(error))}. {visible(self.description)}"
            return Markup('<p class="meta">{}</p>').format(text)


def draw(spec: Mapping[str, Any], id: str, title: str, description: str) -> Drawing:
    """Start compiling a specification; `title` and `description` are its text alternative."""
    _compiler().start()
    return Drawing(_thread().submit(_svg, spec, id, title, description), description)


def warm_up() -> None:
    """Start the compiler, which takes longer than any chart."""
    _compiler().start(again=True)
    _thread().submit(_compiler().compile, {"data": {"values": [{}]}, "mark": "point"})


def problem() -> str:
    """Why a chart since `warm_up` has no picture; empty if all that are finished have one."""
    return _compiler().problem


def note(method: str, text: str = "") -> str:
    """A mark's `description`: its method, for the page's filter, and its tooltip."""
    return json.dumps([method, text])


@cache
def _compiler() -> Compiler:
    compiler = Compiler()
    atexit.register(compiler.stop)
    return compiler


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="charts")


def _svg(spec: Mapping[str, Any], id: str, title: str, description: str) -> str:
    root = ElementTree.fromstring(_compiler().compile(spec))
    made = Element(
        "svg",
        {
            "id": id,
            "class": "chart",
            "viewBox": root.attrib["viewBox"],
            "role": "img",
            "aria-labelledby": f"{id}-title {id}-text",
        },
    )
    SubElement(made, "title", {"id": f"{id}-title"}).text = visible(title)
    SubElement(made, "desc", {"id": f"{id}-text"}).text = visible(description)
    for child in root:
        made.extend(_cleaned(child))
    return ElementTree.tostring(made, encoding="unicode")


def _cleaned(element: Element) -> list[Element]:
    """The element with visible attributes only; a group without any is replaced by its members."""
    tag = element.tag.rpartition("}")[2]
    names = element.get("class", "").split()
    if names and names[-1] in ("background", "foreground"):
        return []
    made = Element(tag, dict(_seen(element)))
    made.text = element.text
    for child in element:
        made.extend(_cleaned(child))
    if tag != "g":
        return [_noted(made, element.get("aria-label", ""))]
    if not len(made):
        return []
    _hoist(made)
    inner = made[0]
    if len(made) == 1 and inner.tag == "g" and "transform" not in inner.attrib:
        made.attrib |= inner.attrib
        made[:] = list(inner)
    # Vega says "mark-rect role-mark band_marks" where a layer is named band.
    if names and names[0] != "mark-group":
        made.set("class", names[-1].removeprefix("role-").removesuffix("_marks"))
    if not made.attrib:
        return list(made)
    return [made]


def _seen(element: Element) -> Iterator[tuple[str, str]]:
    """Attributes that are visible; coordinates with two decimals."""
    for key, value in element.items():
        if key not in KEPT or (key, value) in (("opacity", "1"), ("transform", "translate(0,0)")):
            continue
        if key in GEOMETRY:
            value = re.sub(r"-?\d*\.\d+(e-?\d+)?", lambda number: f"{float(number[0]):.2f}", value)
        yield key, value


def _noted(made: Element, label: str) -> Element:
    """A mark with its method as `data-method`, and a tooltip where it can have one."""
    if not label.startswith('["'):  # Vega's default description of a mark without one
        return made
    method, text = json.loads(label)
    if method:
        made.set("class", "series")
        made.set("data-method", visible(method))
    if text and made.tag in TITLED:
        SubElement(made, "title").text = visible(text)
    return made


def _hoist(group: Element) -> None:
    """Move attributes that all members share to the group."""
    first, *others = group
    for key, value in list(first.items()):
        if key in INHERITED and all(other.get(key) == value for other in others):
            group.set(key, value)  # its own value is inherited by no member
            for member in group:
                del member.attrib[key]
