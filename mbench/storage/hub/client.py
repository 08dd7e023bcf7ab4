"""The HTTP client that huggingface_hub uses here: how long it waits, how often it asks again.

All in one place, as the library has its own retries in some calls, none in others, and waits
without end in a third kind. What this client gives up on, it raises as `HubUnreachable`, which the
library passes on.
"""

from __future__ import annotations

import contextlib
import email.utils
import logging
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.utils._http import parse_ratelimit_headers

from mbench.core.replaced import replaced
from mbench.storage.hub.answers import HubUnreachable, Say, hub, not_a_hub

WAITS = (1.0, 2.0, 4.0)
"""Seconds before each further try, after an answer that says to try again, or a cut one."""

TRIES_IN_SILENCE = 2
"""How often is asked if nothing answers; each costs HF_HUB_ETAG_TIMEOUT (10 s) at most."""

LONGEST_WAIT = 330.0
"""Seconds that a hub may ask to wait, in all for one request: its windows have five minutes."""

MOST_BREAKS = 3
"""How often in a row the transfer of a file may break off before `LEAST_PROGRESS` has come."""

LEAST_PROGRESS = 2**20
"""Bytes."""


class _Client(httpx2.Client):
    """Asks again where that helps, and turns what remains into one line."""

    def __init__(self, say: Say, **options: Any) -> None:
        super().__init__(**options)
        self._say = say
        self._dead: dict[str, str] = {}
        self._transfers: dict[str, _Transfer] = {}
        self._lock = threading.Lock()
        self.interrupted = threading.Event()

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """As `httpx2.Client.send`; raises `HubUnreachable` where asking again did not help."""
        if request.url.path == "/api/agent-harnesses":
            # The library wants to know whether a program drives it, and does without.
            raise HubUnreachable("not asked")
        if request.url.host in self._dead:
            # A run asks for many repositories: the wait for a dead hub is paid once.
            raise HubUnreachable(self._dead[request.url.host])
        tries, waited = 0, 0.0
        while True:
            tries += 1
            try:
                response = super().send(request, **options)
                problem = _problem(response, streamed=bool(options.get("stream")))
                wait: float | None = WAITS[tries - 1] if tries <= len(WAITS) else None
                if problem is None:
                    return self._watched(request, response)
                told = _told_to_wait(response) if response.status_code in (429, 503) else None
                if told is not None:
                    wait = told if waited + told <= LONGEST_WAIT else None
                    problem += f" and asks to wait {told:.0f} s"
                    if wait is not None:
                        self._say(f"{problem}; waiting")
                response.close()
            except httpx2.TransportError as error:
                silent = isinstance(error, (httpx2.TimeoutException, httpx2.ConnectError))
                problem = _no_answer(error)
                last = TRIES_IN_SILENCE if silent else len(WAITS) + 1
                wait = WAITS[tries - 1] if tries < last and not _is_certificate(error) else None
                if silent and wait is None:
                    self._dead[request.url.host] = problem
                elif isinstance(error, httpx2.TimeoutException):
                    wait = 0.0
            if wait is None:
                raise HubUnreachable(problem + (f"; asked {tries} times" if tries > 1 else ""))
            if self.interrupted.wait(wait):
                raise HubUnreachable(f"{problem}; not waited for")
            waited += wait

    def _watched(self, request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        """Limit how often the library takes up the transfer of a file that breaks off."""
        if request.method == "GET" and not response.is_closed and response.status_code < 300:
            key = str(request.url)
            with self._lock:
                transfer = self._transfers.setdefault(key, _Transfer())
            begins = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
            position = int(begins[1]) if begins and response.status_code == 206 else 0
            stream = response.stream
            assert isinstance(stream, httpx2.SyncByteStream)
            response.stream = _Body(stream, transfer, position)
        return response


class _Transfer:
    """How far a file has come, and how often in a row that was not much."""

    def __init__(self) -> None:
        self.best = 0
        self.breaks = 0

    def broke_off(self, position: int, error: Exception) -> None:
        if position - self.best >= LEAST_PROGRESS:
            self.breaks = 0
        self.best = max(self.best, position)
        self.breaks += 1
        if self.breaks >= MOST_BREAKS:
            times, self.breaks = self.breaks, 0
            how = "fell silent" if isinstance(error, httpx2.TimeoutException) else "broke off"
            raise HubUnreachable(
                f"{hub()} {how} in the middle of the file, {times} times, after {position} bytes"
            ) from error


class _Body(httpx2.SyncByteStream):
    """The bytes of a file as they come."""

    def __init__(self, stream: httpx2.SyncByteStream, transfer: _Transfer, position: int) -> None:
        self._stream, self._transfer, self._position = stream, transfer, position

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._stream:
                self._position += len(chunk)
                yield chunk
        except httpx2.TransportError as error:
            self._transfer.broke_off(self._position, error)
            raise

    def close(self) -> None:
        self._stream.close()


_active: list[_Client] = []


@contextlib.contextmanager
def asking(say: Say) -> Iterator[None]:
    """Let huggingface_hub, and what uses it, ask the hub through this client meanwhile.

    Inside another `asking` this changes nothing, so that what a whole run asks for knows after the
    first silence that the hub is dead.
    """
    if _active:
        yield
        return
    usual = huggingface_hub.get_session()
    options: dict[str, Any] = {"event_hooks": usual.event_hooks, "follow_redirects": True}
    client = _Client(say, timeout=constants.HF_HUB_ETAG_TIMEOUT, **options)
    _active.append(client)
    # Its warnings tell of every single try.
    log = logging.getLogger("huggingface_hub")
    try:
        huggingface_hub.set_client_factory(lambda: client)
        with replaced(log, "level", logging.ERROR):
            yield
    finally:
        _active.clear()
        huggingface_hub.set_client_factory(lambda: httpx2.Client(timeout=None, **options))


@contextlib.contextmanager
def no_more_waiting() -> Iterator[None]:
    """Let all threads that wait to ask again give up meanwhile."""
    _active[0].interrupted.set()
    try:
        yield
    finally:
        _active[0].interrupted.clear()


def _problem(response: httpx2.Response, streamed: bool) -> str | None:
    """Why an answer cannot be used and asking again may help, or None."""
    status = response.status_code
    if status == 429:
        return f"{hub()} has had too many requests (429)"
    if status in (408, 425) or status >= 500:
        return f"{hub()} has trouble of its own ({status} {response.reason_phrase})"
    if status >= 300 or response.request.method == "HEAD":
        return None
    kind = response.headers.get("Content-Type", "").lower()
    if "html" in kind and not response.url.path.endswith((".html", ".htm")):
        return not_a_hub("a web page")
    if "/api/" in response.url.path and not streamed:
        try:
            response.json()
        except ValueError:
            return not_a_hub("an answer that is no JSON")
    return None


def _told_to_wait(response: httpx2.Response) -> float | None:
    """Seconds after which to ask again, where the answer says so."""
    limit = parse_ratelimit_headers(response.headers)
    if response.status_code == 429 and limit is not None and limit.remaining == 0:
        return limit.reset_in_seconds
    text = response.headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    with contextlib.suppress(ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    return None


def _no_answer(error: httpx2.TransportError) -> str:
    text = str(error)
    if isinstance(error, httpx2.TimeoutException):
        how = f"no answer within {constants.HF_HUB_ETAG_TIMEOUT} s"
    elif isinstance(error, httpx2.ProxyError):
        how = "the proxy refuses"
    elif _is_certificate(error):
        how = "its certificate cannot be verified"
    elif "Name or service" in text or "name resolution" in text or "getaddrinfo" in text:
        how = "its name cannot be looked up"
    elif isinstance(error, httpx2.ConnectError):
        how = "no connection" + (": refused" if "refused" in text.lower() else "")
    else:
        how = "the connection was closed in the middle of an answer"
    return f"{hub()} cannot be reached ({how})"


def _is_certificate(error: Exception) -> bool:
    return "CERTIFICATE_VERIFY" in str(error)
