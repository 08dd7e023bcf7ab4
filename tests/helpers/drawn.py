"""What a chart shows, read off its SVG: marks by layer, and their values by the axes' labels."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
import pytest

UNITS = {"": 1.0, "%": 0.01, "kB": 1e3, "MB": 1e6, "GB": 1e9}
NUMBER = r"-?\d*\.?\d+(?:e-?\d+)?"


@dataclass(frozen=True)
class Mark:
    """One mark: the corners or points of its outline, or where its shape is centred."""

    points: tuple[tuple[float, float], ...]
    method: str | None
    title: str
    look: tuple[str | None, ...]
    """Fill, stroke, and the path of a shape."""

    @property
    def x(self):
        return [x for x, _ in self.points]

    @property
    def y(self):
        return [y for _, y in self.points]


class Drawn:
    def __init__(self, chart):
        self.root = ElementTree.fromstring(chart.drawing.__html__())
        self.width, self.height = map(float, self.root.get("viewBox").split()[2:])
        self.layers = defaultdict(list)
        self._labels = {"x": [], "y": []}
        self._grid = []
        self._walk(self.root, (0.0, 0.0), {}, "")

    def _walk(self, element, at, inherited, layer):
        own = {**inherited, **element.attrib}
        if "transform" in element.attrib:
            shift = re.findall(NUMBER, element.get("transform"))
            at = (at[0] + float(shift[0]), at[1] + float(shift[1]))
        if element.tag in ("g", "svg"):
            layer = element.get("class", layer)
            drop = ("class", "transform", "id")
            passed = {k: v for k, v in own.items() if k not in drop}
            for child in element:
                self._walk(child, at, passed, layer)
        elif element.tag == "text" and layer == "axis-label":
            self._labels["y" if own["text-anchor"] == "end" else "x"].append((at, element.text))
        elif layer == "axis-grid":
            self._grid.append((at, own))
        elif element.tag in ("path", "line", "text"):
            title = element.find("title")
            moved = "transform" in element.attrib
            look = (own.get("fill"), own.get("stroke"), own["d"] if moved and "d" in own else None)
            points = tuple(self._points(element, at, moved))
            text = element.text if element.tag == "text" else getattr(title, "text", "")
            self.layers[layer].append(Mark(points, element.get("data-method"), text, look))

    @staticmethod
    def _points(element, at, moved):
        if element.tag == "line":
            yield at
            yield at[0] + float(element.get("x2")), at[1] + float(element.get("y2"))
        elif moved or element.tag == "text":
            yield at
        else:
            x, y = at
            for command, numbers in re.findall(r"([MLhvHV])([^A-Za-z]*)", element.get("d")):
                values = [float(number) for number in re.findall(NUMBER, numbers)]
                if command in "ML":
                    x, y = at[0] + values[0], at[1] + values[1]
                elif command in "hv":
                    x, y = (x + values[0], y) if command == "h" else (x, y + values[0])
                yield x, y

    def by_method(self, layer):
        found = defaultdict(list)
        for mark in self.layers[layer]:
            found[mark.method].append(mark)
        return found

    def labels(self, axis):
        """Positions and texts, in order along the axis."""
        place = 0 if axis == "x" else 1
        return sorted((at[place], text) for at, text in self._labels[axis])

    def value(self, axis, position):
        """The figure at a position of a linear axis, interpolated between its labels."""
        positions, texts = zip(*self.labels(axis), strict=True)
        if axis == "y":  # a label's baseline is not its line
            positions = sorted(at[1] for at, own in self._grid if "x2" in own)
        numbers = [_number(text) for text in texts]
        slope, start = np.polyfit(positions, numbers, 1)
        assert np.polyval([slope, start], positions) == pytest.approx(numbers, rel=1e-3, abs=1e-3)
        return slope * position + start


def _number(text):
    number, _, unit = text.replace("−", "-").replace("+", "").partition("\N{NO-BREAK SPACE}")
    return float(number) * UNITS[unit]
