"""Text that leaves the program: no control characters, no credentials, nothing of the user.

Models, tasks, plugins and suites bring text of their own, which reaches terminals, tables and pages
that others read. Nothing that is computed or identified by its content passes through here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

T = TypeVar("T")

CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
"""All control characters but tab and line feed, those that end lines or reorder the text around
them, and halves of characters, which no file can hold."""

HIDDEN = "***"
HOME = "~"
USER = "USER"

_LONG = 6
"""Characters from which on the value of a variable is taken for a secret."""

_SECRET_NAMES = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|KEY", re.IGNORECASE)

_CREDENTIALS = re.compile(
    r"""
    (?-i:(?<![A-Za-z0-9])(?:hf|gh[a-z]|github_pat|sk|glpat|xox[a-z])[-_]
        (?:(?=[a-z_-]*[A-Z0-9])[\w-]{6,}|[A-Za-z0-9]{20,}))  # not names such as hf_transfer
  | (?-i:(?<![A-Za-z0-9])AKIA[0-9A-Z]{16}\b)
  | (?<=://)[^/\s@?\#]+(?=@)                                # in a URL
  | (?<=bearer\ )[^\s'",;]{6,}
  | (?<=[?&])([\w.-]*(?:token|secret|passw|key|signature|credential)[\w.-]*=)[^&\s'"\#]+
  | \b((?:password|passwd|secret|api[_-]?key)=)[^&\s'",;]+
    """,
    re.IGNORECASE | re.VERBOSE,
)

_ADDRESS = re.compile(r"https?://\S+")


def visible(text: str) -> str:
    r"""Replace control characters by their numbers, e.g. `\x1b`; tabs and line feeds stay."""
    if text.isprintable():
        return text
    return CONTROLS.sub(_number, text.replace("\r\n", "\n"))


def _number(control: re.Match[str]) -> str:
    code = ord(control[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


@dataclass(frozen=True)
class _Rules:
    """What is hidden on this machine, for this user."""

    secrets: re.Pattern[str] | None
    homes: re.Pattern[str] | None
    users: re.Pattern[str] | None

    @classmethod
    def now(cls) -> _Rules:
        secrets = set(_secrets())
        return cls(
            _any_of(secrets, r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"),
            _any_of(_homes(), r"(?<![\w.~-])", r"(?=/|$|[^\w.-]|\.(?!\w))"),
            _any_of(_users(), r"(?<=/)", r"(?=/|$|[^\w.-]|\.(?!\w))"),
        )

    def apply(self, text: str) -> str:
        if self.secrets is not None:
            text = self.secrets.sub(HIDDEN, text)
        text = _CREDENTIALS.sub(lambda found: (found[1] or found[2] or "") + HIDDEN, text)
        if "/" not in text:
            return text
        if self.homes is not None:
            text = self.homes.sub(HOME, text)
        if self.users is None:
            return text
        # The name of an account on a hub is no place on this machine.
        parts, end = [], 0
        for address in _ADDRESS.finditer(text):
            parts += [self.users.sub(USER, text[end : address.start()]), address[0]]
            end = address.end()
        return "".join([*parts, self.users.sub(USER, text[end:])])


def _any_of(texts: set[str], before: str, after: str) -> re.Pattern[str] | None:
    """A pattern of any of the texts, the longest first."""
    if not texts:
        return None
    ordered = sorted(texts, key=lambda text: (-len(text), text))
    return re.compile(f"{before}(?:{'|'.join(map(re.escape, ordered))}){after}")


def _secrets() -> Iterator[str]:
    for name, value in os.environ.items():
        plain = value.isdigit() or value.startswith(("/", "~")) or name.startswith("TOKENIZERS_")
        if _SECRET_NAMES.search(name) and len(value) >= _LONG and not plain:
            yield from (value, quote(value, safe=""))


def _homes() -> set[str]:
    """The user's home as variables and the system know it, links resolved too."""
    homes = {os.path.expanduser("~")}
    try:
        import pwd

        homes.add(pwd.getpwuid(os.getuid()).pw_dir)
    except (ImportError, KeyError):  # not a Unix, or a user without an entry
        pass
    homes |= {os.path.realpath(home) for home in homes}
    homes |= {quote(home) for home in homes}
    return {home.rstrip("/") for home in homes} - {"", "~"}


def _users() -> set[str]:
    """The user's names, that of the home folder included."""
    names = {Path(home).name for home in _homes() if home.count("/") > 1}
    names |= {os.environ.get(name, "") for name in ("LOGNAME", "USER", "USERNAME", "SUDO_USER")}
    with contextlib.suppress(KeyError, OSError):  # a user without an entry
        names.add(getpass.getuser())
    return names - {"", "root", "home"}


def redacted(text: str) -> str:
    """Credentials become `***`, the home folder `~`, the user's name in a path `USER`."""
    return _Rules.now().apply(text)


def shown_place(path: str | Path) -> str:
    """A path that a shell finds: relative, or from the home folder, where it would tell more."""
    rules, text = _Rules.now(), os.fspath(path)
    if rules.apply(text) == text:
        return text
    with contextlib.suppress(OSError, ValueError):  # no working directory, another drive
        relative = os.path.relpath(text)
        if rules.apply(relative) == relative:
            return relative
    return text if rules.homes is None else rules.homes.sub(HOME, text)


def cleaned(value: T) -> T:
    """Text, or a value with all the text in it, `visible` and redacted.

    Goes into dataclasses, mappings (their keys too), lists and tuples. What needs no change stays
    the same object.
    """
    rules, known = _Rules.now(), dict[str, str]()

    def clean(part: Any) -> Any:
        if isinstance(part, str):
            if part not in known:
                known[part] = rules.apply(visible(part))
            # A subclass such as markup stays what it is.
            return part if known[part] == part else type(part)(known[part])
        if isinstance(part, Mapping):
            made = {clean(key): clean(entry) for key, entry in part.items()}
            pairs = zip(made.items(), part.items(), strict=True) if len(made) == len(part) else ()
            same = all(new[0] is old[0] and new[1] is old[1] for new, old in pairs)
            return part if same and len(made) == len(part) else made
        if type(part) in (list, tuple):
            entries = [clean(entry) for entry in part]
            same = all(new is old for new, old in zip(entries, part, strict=True))
            return part if same else type(part)(entries)
        if dataclasses.is_dataclass(part) and not isinstance(part, type):
            old = {each.name: getattr(part, each.name) for each in dataclasses.fields(part)}
            new = {name: clean(value) for name, value in old.items()}
            changes = {name: value for name, value in new.items() if value is not old[name]}
            return dataclasses.replace(part, **changes) if changes else part
        return part

    result: T = clean(value)
    return result


def restored(path: str) -> str:
    """The place that a redacted path names for this user on this machine."""
    path = os.path.expanduser(path)
    if f"/{USER}/" in path and not os.path.exists(path):
        for name in sorted(_users()):
            candidate = path.replace(f"/{USER}/", f"/{name}/")
            if os.path.exists(candidate):
                return candidate
    return path
