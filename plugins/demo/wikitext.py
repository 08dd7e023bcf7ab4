"""Extracts plain paragraphs from a MediaWiki dump; it does not render templates or tables."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import IO
from xml.etree import ElementTree

SHORTEST = 1000
"""Articles with fewer characters of prose are left out: stubs and lists of links."""

LAST_SECTIONS = re.compile(
    r"^==\s*(?:see also|references|notes|footnotes|further reading|external links|bibliography"
    r"|sources|citations|works cited|notes and references)\s*==\s*$",
    re.IGNORECASE | re.MULTILINE,
)
DROPPED = re.compile(
    r"<!--.*?-->|<ref[^>/]*/>|<ref[^>]*>.*?</ref>|<(math|gallery|timeline|table|code|source|"
    r"syntaxhighlight|imagemap|score|pre)\b[^>]*>.*?</\1>",
    re.DOTALL | re.IGNORECASE,
)
TEMPLATE = re.compile(r"\{\{[^{}]*\}\}")
TABLE = re.compile(r"\{\|(?:(?!\{\|).)*?\|\}", re.DOTALL)
PLAIN_LINK = re.compile(r"\[\[([^\[\]|]*)\]\]")
PIPED_LINK = re.compile(r"\[\[[^\[\]|]*\|([^\[\]|]*)\]\]")
MEDIA_LINK = re.compile(r"\[\[(?:file|image|category)\s*:[^\[\]]*\]\]", re.IGNORECASE)
OTHER_LINK = re.compile(r"\[\[[^\[\]]*\]\]")
WEB_LINK = re.compile(r"\[(?:https?|ftp)://[^\s\]]*\s*([^\]]*)\]")
TAG = re.compile(r"<[^<>]{1,200}>")
EMPHASIS = re.compile(r"'{2,}")
EMPTY_BRACKETS = re.compile(r"\s*\(\s*[,;:\s]*\)")


def articles(stream: IO[bytes]) -> Iterator[tuple[str, str]]:
    """(title, prose) of the articles in an XML dump; redirects and short pages are left out."""
    for _, element in ElementTree.iterparse(stream):
        if element.tag.rpartition("}")[2] != "page":
            continue
        title = element.findtext("{*}title") or ""
        namespace = element.findtext("{*}ns")
        text = element.findtext("{*}revision/{*}text") or ""
        element.clear()
        if namespace == "0" and not text.lstrip().upper().startswith("#REDIRECT"):
            prose = plain(text)
            if len(prose) >= SHORTEST:
                yield title, prose


def plain(markup: str) -> str:
    """Paragraphs of running text, one per line: no headings, lists, tables, notes or links."""
    text = DROPPED.sub("", markup)
    text = LAST_SECTIONS.split(text)[0]
    text = _until_stable(TEMPLATE, "", text)
    text = _until_stable(TABLE, "", text)
    text = _links(text)
    text = WEB_LINK.sub(r"\1", text)
    text = TAG.sub("", text)
    text = EMPTY_BRACKETS.sub("", EMPHASIS.sub("", html.unescape(text))).replace("\u00a0", " ")
    lines = (re.sub(r"\s+", " ", line).strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if _is_prose(line))


def _links(text: str) -> str:
    """Links replaced by the words they show; captions of media contain links, so inside out."""
    while True:
        smaller = MEDIA_LINK.sub("", text)
        smaller = PIPED_LINK.sub(lambda match: _unless_media(match, match[1]), smaller)
        smaller = PLAIN_LINK.sub(lambda match: _unless_media(match, match[1]), smaller)
        if smaller == text:
            return OTHER_LINK.sub("", text)
        text = smaller


def _unless_media(match: re.Match[str], words: str) -> str:
    return "" if re.match(r"\[\[(?:file|image|category)\s*:", match[0], re.I) else words


def _until_stable(pattern: re.Pattern[str], replacement: str, text: str) -> str:
    """Substitute until nothing changes: templates and tables are nested."""
    while True:
        smaller = pattern.sub(replacement, text)
        if smaller == text:
            return text
        text = smaller


def _is_prose(line: str) -> bool:
    """A sentence or more: long enough, and neither a heading, a list item nor a table's row."""
    return len(line) >= 60 and line[0] not in "=*#:;|!{}[]&"
