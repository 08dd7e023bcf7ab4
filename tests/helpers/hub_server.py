"""A Hugging Face hub on the loopback interface, which can be told to fail in all ways hubs do.

Large files are given as the hub does: a redirect to another host (`localhost`, where the hub is
`127.0.0.1`), whose answer carries size and sha256.
"""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading
import urllib.parse
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from helpers.hub_faults import FAULTS, IN_BODY, PAGE, REFUSALS, refusal, spoilt
from helpers.hub_listing import entries, git_id

LARGE = (".safetensors", ".bin", ".parquet")


@dataclass
class _Repository:
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)


@dataclass
class _Fault:
    name: str
    on: str
    times: int | None


class HubServer:
    """Serves what was pushed; use it as a context manager."""

    def __init__(self, *, page: int = 1000) -> None:
        """Nothing is pushed yet; one answer lists `page` entries."""
        self.page = page
        self.large_files = True
        """Whether some files are in large file storage, listed with a sha256."""
        self.requests: list[tuple[str, str, str | None]] = []
        """Method, path, and the header that holds the token."""
        self.retry_after = "0"
        """What a 429 says."""
        self.over = threading.Event()
        self._repositories: dict[tuple[str, str], _Repository] = {}
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> HubServer:
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Answer nothing any more: connections are refused."""
        if not self.over.is_set():
            self.over.set()
            self._server.shutdown()
            self._server.server_close()

    def push(
        self, kind: str, name: str, files: Mapping[str, bytes] | Path, branch: str = "main"
    ) -> str:
        """Make a commit of these files, on a branch of a repository, and return its name."""
        if isinstance(files, Path):
            paths = [path for path in files.rglob("*") if path.is_file()]
            files = {path.relative_to(files).as_posix(): path.read_bytes() for path in paths}
        repository = self._repositories.setdefault((kind, name), _Repository())
        whole = repr((kind, name, len(repository.commits), sorted(files.items())))
        commit = hashlib.sha1(whole.encode()).hexdigest()
        repository.commits[commit] = dict(files)
        repository.branches[branch] = commit
        return commit

    def commit(self, kind: str, name: str, branch: str = "main") -> str:
        """The last commit of a branch."""
        return self._repositories[kind, name].branches[branch]

    def fail(self, name: str, on: str, times: int | None = None) -> None:
        """Answer with a fault from now on, or so many times.

        `on` is `commit`, `tree`, `api` for both, the name of a file, or `large` and such a name for
        the other host that has large files.
        """
        assert name in FAULTS, name
        self._faults.append(_Fault(name, on, times))

    def heal(self) -> None:
        """Answer everything rightly from now on."""
        self._faults.clear()

    def fault(self, on: str, among: Collection[str] = FAULTS) -> str | None:
        """The fault that this request meets, if it is one of these."""
        with self._lock:
            for fault in self._faults:
                matches = fault.on == on or (fault.on == "api" and on in ("commit", "tree"))
                if matches and fault.times != 0 and fault.name in among:
                    if fault.times is not None:
                        fault.times -= 1
                    return fault.name
        return None

    def repository(self, kind: str, name: str) -> _Repository | None:
        """A repository that something was pushed to."""
        return self._repositories.get((kind, name))

    def newest(self, kind: str, name: str) -> dict[str, bytes]:
        """The files of the last commit of the main branch."""
        repository = self._repositories[kind, name]
        return repository.commits[repository.branches["main"]]

    def blob(self, sha256: str) -> tuple[str, bytes] | None:
        """Name and content of a large file."""
        for repository in self._repositories.values():
            for files in repository.commits.values():
                for name, content in files.items():
                    if hashlib.sha256(content).hexdigest() == sha256:
                        return name, content
        return None

    def is_large(self, name: str) -> bool:
        """Whether a file is in large file storage."""
        return self.large_files and name.endswith(LARGE)


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    """Else a body waits for the acknowledgement of its headers, which comes 0.04 s late."""

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer_safely()

    def do_HEAD(self) -> None:
        self._answer_safely()

    def do_POST(self) -> None:
        self._answer_safely()

    def _answer_safely(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self._sent = self.rfile.read(length)
        self.hub.requests.append((self.command, self.path, self.headers.get("Authorization")))
        try:
            if self.hub.over.is_set():
                return self._end()
            self._answer()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _answer(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        parts = [urllib.parse.unquote(part) for part in url.path.strip("/").split("/")]
        query = dict(urllib.parse.parse_qsl(url.query))
        if parts == ["login"]:
            return self._send(200, PAGE, {"Content-Type": "text/html"})
        if parts[0] == "large":
            blob = self.hub.blob(parts[1])
            assert blob is not None
            name, content = blob
            fault = self.hub.fault(name, IN_BODY) or self.hub.fault(f"large {name}")
            return self._file(content, {"ETag": f'"{parts[1]}"'}, fault)
        if parts[0] == "api":
            return self._api(parts[1].removesuffix("s"), "/".join(parts[2:4]), parts[4:], query)
        kind = "model"
        if parts[0] == "datasets":
            kind, parts = "dataset", parts[1:]
        return self._resolve(kind, "/".join(parts[:2]), parts[3], "/".join(parts[4:]))

    def _at(self, kind: str, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        repository = self.hub.repository(kind, name)
        if repository is None:
            self._refuse("404 repository")
            return None
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            self._refuse("404 revision")
            return None
        return commit, repository.commits[commit]

    def _api(self, kind: str, name: str, rest: list[str], query: dict[str, str]) -> None:
        what = rest[0] if rest else "revision"
        revision = rest[1] if len(rest) > 1 else "main"
        at = self._at(kind, name, revision)
        if at is None:
            return None
        commit, files = at
        if what == "revision":
            siblings = [{"rfilename": each} for each in files]
            answer = {"id": name, "sha": commit, "siblings": siblings, "tags": [], "private": False}
            return self._json("commit", answer)
        if what == "paths-info":
            try:
                paths = json.loads(self._sent)["paths"]
            except ValueError:
                paths = urllib.parse.parse_qs(self._sent.decode())["paths"]
            asked = [
                each for each in entries(files, self.hub.is_large, True) if each["path"] in paths
            ]
            return self._json("tree", asked)
        below = "/".join(rest[2:])
        inside = {
            each: content
            for each, content in files.items()
            if not below or each.startswith(f"{below}/")
        }
        if below and not inside:
            return self._refuse("404 file")
        recursive = query.get("recursive", "").lower() in ("1", "true")
        listed = entries(inside, self.hub.is_large, recursive, below)
        start = int(query.get("cursor", 0))
        headers = {}
        if start + self.hub.page < len(listed):
            address = self.path.split("?")[0]
            following = urllib.parse.urlencode({**query, "cursor": start + self.hub.page})
            headers["Link"] = f'<{self.hub.url}{address}?{following}>; rel="next"'
        return self._json("tree", listed[start : start + self.hub.page], headers)

    def _resolve(self, kind: str, name: str, revision: str, file: str) -> None:
        at = self._at(kind, name, revision)
        if at is None:
            return None
        commit, files = at
        if self.hub.fault(file, ("newest",)):
            files = self.hub.newest(kind, name)
        headers = {"X-Repo-Commit": commit}
        if file not in files:
            return self._refuse("404 file", headers)
        content = files[file]
        if self.hub.is_large(file):
            sha256 = hashlib.sha256(content).hexdigest()
            fault = self.hub.fault(file, set(FAULTS) - {*IN_BODY, "newest"})
            if fault not in (None, "slow"):
                return self._fail(str(fault), b"", headers)
            headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
            headers["Location"] = f"http://localhost:{self.hub.port}/large/{sha256}"
            return self._send(302, b"", headers)
        headers["ETag"] = f'"{git_id(content)}"'
        return self._file(content, headers, self.hub.fault(file, set(FAULTS) - {"newest"}))

    def _file(self, content: bytes, headers: dict[str, str], fault: str | None) -> None:
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **headers}
        status, wanted = 200, self.headers.get("Range")
        if wanted and self.command == "GET":
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            end = int(last) + 1 if last else len(content)
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(content)}"
            status, content = 206, content[int(first) : end]
        if fault is not None:
            return self._fail(fault, content, headers, status)
        return self._send(status, content, headers)

    def _json(self, on: str, answer: object, headers: dict[str, str] | None = None) -> None:
        headers = {"Content-Type": "application/json", **(headers or {})}
        fault = self.hub.fault(on)
        if fault is not None:
            return self._fail(fault, json.dumps(answer).encode(), headers)
        return self._send(200, json.dumps(answer).encode(), headers)

    def _refuse(self, name: str, headers: Mapping[str, str] | None = None) -> None:
        status, own, body = refusal(name, self.hub.retry_after)
        self._send(status, body, {**(headers or {}), **own})

    def _fail(self, fault: str, content: bytes, headers: dict[str, str], status: int = 200) -> None:
        half = content[: len(content) // 2]
        if fault in REFUSALS:
            return self._refuse(fault)
        if fault == "close":
            return self._end()
        if fault == "hang":
            self.hub.over.wait(30)
            return self._end()
        if fault == "slow":
            self.hub.over.wait(0.05)
        if fault == "page":
            return self._send(200, PAGE, {"Content-Type": "text/html"})
        if fault in ("circle", "elsewhere"):
            login = f"http://localhost:{self.hub.port}/login"
            return self._send(302, b"", {"Location": self.path if fault == "circle" else login})
        if fault in ("cut", "reset"):
            self._send(status, half, {**headers, "Content-Length": str(len(content))})
            return self._end(reset=fault == "reset")
        self._send(status, spoilt(fault, content), headers)

    def _end(self, reset: bool = False) -> None:
        self.close_connection = True
        if reset:
            now = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
        self.connection.close()

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.wfile.flush()
