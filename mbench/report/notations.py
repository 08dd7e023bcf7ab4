"""The notations of tables for papers, LaTeX and Markdown: their signs, and how text is escaped."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from mbench.report.words import MINUS


@dataclass(frozen=True)
class Syntax:
    """The notation of a format."""

    text: Callable[[str], str]
    """Escapes a name."""
    plain: str
    bold: str
    spread: str
    infinite: str
    missing: str
    minus: str
    lower: str
    early: str
    """Stands behind a figure that is an estimate."""


def latex_text(text: str) -> str:
    """Escape a text for LaTeX (T1 encoding): no commands, no ligatures, one line."""
    escaped = "".join(_LATEX.get(sign, sign) for sign in _one_line(text))
    return re.sub(r"([-,])(?=\1)", r"\1{}", escaped)


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
}


def markdown_text(text: str) -> str:
    """Escape a text for Markdown, inside tables too; one line."""
    return re.sub(r"([\\`*_\[\]<>|~&$])", r"\\\1", _one_line(text))


def _one_line(text: str) -> str:
    visible = "".join(" " if unicodedata.category(sign)[0] == "C" else sign for sign in text)
    return " ".join(visible.split())


SYNTAX = {
    "latex": Syntax(
        latex_text,
        "%s",
        r"\textbf{%s}",
        r"$\pm$",
        r"$\infty$",
        "--",
        "$-$",
        r"$\downarrow$",
        r"$^{\dagger}$",
    ),
    "markdown": Syntax(
        markdown_text, "%s", "**%s**", "±", "∞", "–", MINUS, "↓", "\N{NO-BREAK SPACE}†"
    ),
}
