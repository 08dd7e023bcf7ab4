"""The HTTP client that huggingface_hub uses here: how long it waits, how often it asks again.

All in one place, as the library has its own retries in some calls, none in others, and waits
without end in a third kind. What this client gives up on, it raises as `HubUnreachable`, which the
library passes on.
"""

from __future__ import annotations

import contextlib
import email.utils
import functools
import logging
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

from mbench.core.replaced import replaced
from mbench.storage.hub.answers import WITHOUT_HEADERS, HubUnreachable, Say, hub, not_a_hub

WAITS = (1.0, 2.0, 4.0)
"""Seconds before each further try, after an answer that says to try again, or a cut one."""

TRIES_IN_SILENCE = 2
"""How often is asked if nothing answers; each costs HF_HUB_ETAG_TIMEOUT (10 s) at most."""

DEAD_FOR = 60.0
"""Seconds for which a host that gave no answer is not asked again: a run asks for many things."""

SILENCE = (httpx2.TimeoutException, httpx2.ConnectError)

LONGEST_WAIT = 330.0
"""Seconds that a hub may ask to wait, in all for one request: its windows have five minutes."""

MOST_BREAKS = 3
"""How often in a row the transfer of a file may break off before `LEAST_PROGRESS` has come."""

LEAST_PROGRESS = 2**20
"""Bytes."""


@dataclass
class _State:
    """What all clients of this process know: the library makes a new one now and then."""

    say: Say | None = None
    """None outside of `asking`."""
    dead: dict[str, tuple[float, str]] = field(default_factory=dict)
    """Since when and why hosts give no answer."""
    transfers: dict[str, _Transfer] = field(default_factory=dict)
    """Of files, by address."""
    interrupted: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Client(httpx2.Client):
    """Asks again where that helps, and turns what remains into one line."""

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """As `httpx2.Client.send`; raises `HubUnreachable` where asking again did not help."""
        if request.url.path == "/api/agent-harnesses":
            # The library wants to know whether a program drives it, and does without.
            raise HubUnreachable("not asked")
        host = _host(request)
        since, why = _state.dead.get(host, (-DEAD_FOR, ""))
        if time.monotonic() - since < DEAD_FOR:
            raise HubUnreachable(why)
        # Some calls of the library would wait for ever.
        limits = request.extensions["timeout"]
        usual = constants.HF_HUB_ETAG_TIMEOUT
        limits |= {each: usual for each, limit in limits.items() if limit is None}
        tries, waited = 0, 0.0
        while True:
            tries += 1
            try:
                response = super().send(request, **options)
                problem = _problem(response, streamed=bool(options.get("stream")))
                if problem is None:
                    return self._watched(request, response)
                wait = _wait_as_told(response, tries, waited)
                response.close()
                if wait and wait > WAITS[-1] and _state.say is not None:
                    _state.say(f"{problem}; waiting")
            except httpx2.TransportError as error:
                problem, wait = _no_answer(error), _wait_without_answer(error, tries)
                if wait is None and isinstance(error, SILENCE):
                    _state.dead[host] = time.monotonic(), problem
            if wait is None:
                raise HubUnreachable(problem + (f"; asked {tries} times" if tries > 1 else ""))
            if _state.interrupted.wait(wait):
                raise HubUnreachable(f"{problem}; not waited for")
            waited += wait

    def _watched(self, request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        """Limit how often the library takes up the transfer of a file that breaks off."""
        if request.method == "GET" and not response.is_closed and response.status_code < 300:
            key = str(request.url)
            with _state.lock:
                transfer = _state.transfers.setdefault(key, _Transfer())
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
            # After this one, the library takes up the transfer where it broke off.
            raise httpx2.RemoteProtocolError(str(error)) from error

    def close(self) -> None:
        self._stream.close()


_state = _State()


@contextlib.contextmanager
def asking(say: Say) -> Iterator[None]:
    """Let huggingface_hub, and what uses it, ask the hub through this client from now on.

    `say` is told of waits meanwhile. Inside another `asking` this changes nothing.
    """
    if _state.say is not None:
        yield
        return
    _install()
    _state.transfers.clear()
    # Its warnings tell of every single try.
    log = logging.getLogger("huggingface_hub")
    try:
        _state.say = say
        with replaced(log, "level", logging.ERROR):
            yield
    finally:
        _state.say = None


@functools.cache
def _install() -> None:
    hooks = huggingface_hub.get_session().event_hooks
    certificates = httpx2.create_ssl_context()

    def client() -> _Client:
        return _Client(event_hooks=hooks, follow_redirects=True, timeout=None, verify=certificates)

    huggingface_hub.set_client_factory(client)


@contextlib.contextmanager
def no_more_waiting() -> Iterator[None]:
    """Let all threads that wait to ask again give up meanwhile."""
    _state.interrupted.set()
    try:
        yield
    finally:
        _state.interrupted.clear()


def _problem(response: httpx2.Response, streamed: bool) -> str | None:
    """Why an answer cannot be used and asking again may help, or None."""
    status = response.status_code
    told = _told_to_wait(response)
    later = "" if told is None else f" and asks to wait {told:.0f} s"
    who = hub(_host(response.request))
    if status == 429:
        return f"{who} has had too many requests (429){later}"
    if status in (408, 425) or status >= 500:
        return f"{who} has trouble of its own ({status} {response.reason_phrase}){later}"
    if status >= 400:
        return None
    asked, path = response.request.method, response.url.path
    if asked == "HEAD" and "/resolve/" in path:
        named = any(name in response.headers for name in ("ETag", "X-Linked-Etag"))
        if named and "X-Repo-Commit" in response.headers:
            return None
        # The hub's own redirects stay with it until they say which commit they are of.
        target = response.next_request.url.host if response.next_request else None
        return None if target == response.url.host else not_a_hub(WITHOUT_HEADERS)
    kind = response.headers.get("Content-Type", "").lower()
    if status < 300 and "html" in kind and not path.endswith((".html", ".htm")):
        return not_a_hub("a web page")
    if status < 300 and asked == "GET" and "/api/" in path and not streamed:
        try:
            response.json()
        except ValueError:
            return not_a_hub("an answer that is no JSON")
    return None


def _told_to_wait(response: httpx2.Response) -> float | None:
    """Seconds after which to ask again, where the answer says so."""
    if response.status_code not in (429, 503):
        return None
    limit = parse_ratelimit_headers(response.headers)
    if response.status_code == 429 and limit is not None and limit.remaining == 0:
        return limit.reset_in_seconds
    text = response.headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    with contextlib.suppress(ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    return None


def _wait_as_told(response: httpx2.Response, tries: int, waited: float) -> float | None:
    """Seconds until the next try, or None if there is to be none."""
    told = _told_to_wait(response)
    if tries > len(WAITS) or waited + (told or 0.0) > LONGEST_WAIT:
        return None
    return WAITS[tries - 1] if told is None else told


def _wait_without_answer(error: httpx2.TransportError, tries: int) -> float | None:
    """Seconds until the next try, or None if there is to be none."""
    most = TRIES_IN_SILENCE if isinstance(error, SILENCE) else len(WAITS) + 1
    if tries >= most or _is_certificate(error):
        return None
    return 0.0 if isinstance(error, httpx2.TimeoutException) else WAITS[tries - 1]


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
    return f"{hub(_host(error.request))} cannot be reached ({how})"


def _host(request: httpx2.Request) -> str:
    return request.url.netloc.decode()


def _is_certificate(error: Exception) -> bool:
    return "CERTIFICATE_VERIFY" in str(error)
