"""What the Hugging Face hub answered, in one line that says what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mbench.core.errors import MOST_CHARACTERS, MbenchError, caught

Say = Callable[[str], object]
"""Tells the user one line, e.g. why it takes long."""

if TYPE_CHECKING:
    from huggingface_hub.errors import GatedRepoError

WITHOUT_HEADERS = "an answer without the headers of a hub"

LOG_IN = "log in with `hf auth login` or set HF_TOKEN"


class HubRefusal(MbenchError):
    """The hub refuses, or gives what cannot be used; one line."""


class HubUnreachable(HubRefusal):
    """The hub gave no answer: it is down, out of reach, or something else answers in its place."""


def hub(of: str | None = None) -> str:
    """The hub that is asked, in words; or `of`, a host and port that it names for large files."""
    name = "the Hugging Face hub" if host() == "huggingface.co" else f"the hub at {host()}"
    return name if of in (None, host()) else f"{of}, where {name} keeps large files,"


def host() -> str:
    """Host and port of the hub, without user and password that its address may have."""
    from huggingface_hub import constants

    parts = urlsplit(constants.ENDPOINT)
    return (parts.hostname or "?") + (f":{parts.port}" if parts.port else "")


def _page(error: GatedRepoError) -> str:
    """Where a repository is shown."""
    kind = "datasets/" if error.repo_type == "dataset" else ""
    return f"{host()}/{kind}{error.repo_id}" if error.repo_id else f"its page at {host()}"


def refusal(error: BaseException) -> str | None:
    """Why the hub did not give what was asked for, or None for an error that is no answer of it.

    Looks through the causes of the error too: libraries wrap what the client raises.
    """
    return next(filter(None, map(_reason, _chain(error))), None)


@contextmanager
def in_one_line(what: str) -> Iterator[None]:
    """Turn what goes wrong while the hub is asked for `what` into one line that begins with it.

    Raises `HubRefusal` where the hub has answered, or the disk fails, and else `HubUnreachable`.
    """
    try:
        yield
    except HubRefusal as error:
        raise type(error)(f"{what}: {error}") from error
    except Exception as error:
        # The client raises its own, its HTTP library's and built-in errors.
        definite = any(_is_answer(each) for each in _chain(error))
        reason = (
            refusal(error) or f"what {hub()} answered cannot be read ({readable(caught(error))})"
        )
        raise (HubRefusal if definite else HubUnreachable)(f"{what}: {reason}") from error


def _is_answer(error: BaseException) -> bool:
    """Whether an error is not healed by what is known from before."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    disk = isinstance(error, OSError) and error.errno is not None and error.filename is not None
    return isinstance(error, (HfHubHTTPError, HFValidationError)) or disk


def readable(text: str) -> str:
    """What a server wrote, fit for one line of a terminal: no control characters, no token."""
    line = "".join(char if char.isprintable() else " " for char in text[:MOST_CHARACTERS])
    return re.sub(r"hf_\w{6,}", "hf_***", " ".join(line.split()))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _reason(error: BaseException) -> str | None:
    from huggingface_hub.errors import (
        DisabledRepoError,
        FileMetadataError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, HubRefusal):
        return str(error)
    if isinstance(error, OfflineModeIsEnabled):
        return f"{hub()} is not asked, as HF_HUB_OFFLINE says"
    if isinstance(error, HFValidationError):
        return f"this cannot be a name of a repository ({readable(str(error))})"
    if isinstance(error, FileMetadataError):
        return not_a_hub(WITHOUT_HEADERS)
    if not isinstance(error, HfHubHTTPError):
        return _broken(error)
    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        ask = f"ask for access at {_page(error)}"
        if status == 401:
            return f"{hub()} gives it only to those who have access: {ask}, then {LOG_IN}"
        return f"{hub()} gives it only to those who have access, which your account lacks: {ask}"
    if isinstance(error, RevisionNotFoundError):
        return f"{hub()} has no such revision of it"
    if isinstance(error, RemoteEntryNotFoundError):
        return f"{hub()} has no such file in it"
    if isinstance(error, RepositoryNotFoundError):
        return f"{hub()} has no such public repository; if it is a private one, {LOG_IN}"
    if isinstance(error, DisabledRepoError):
        return f"{hub()} has disabled this repository"
    said = readable(error.server_message or "")
    said = f" ({said})" if said else ""
    if status == 401:
        return f"{hub()} does not accept the credentials{said}: {LOG_IN}"
    if status == 403:
        return f"{hub()} forbids it{said}: {LOG_IN} as one who may read it"
    return f"{hub()} answered {status}{said}"


def _broken(error: BaseException) -> str | None:
    """What the client of the hub raises without an answer, or the disk."""
    name = type(error).__name__
    if name == "TooManyRedirects":
        return f"{hub()} redirects in a circle"
    if type(error).__module__.startswith("httpx"):
        return f"{hub()} cannot be reached ({name})"
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return None


def not_a_hub(what: str) -> str:
    """That something else answers in the hub's place."""
    return (
        f"{hub()} cannot be reached: {what} came in its place (a login page of the network, a"
        " proxy, or a wrong HF_ENDPOINT?)"
    )
