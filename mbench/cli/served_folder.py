"""Serves a folder of reports to browsers on this machine; pages reload when they are written anew.

Only files inside the folder are given, to requests that name this server: no symbolic link leads
out of it, nothing whose name begins with a dot is there, and a page of another site cannot ask for
anything (its requests carry its own host). Nothing may be kept in a cache. The script that reloads
a page is added on the way out and is in no file.
"""

from __future__ import annotations

import html
import json
import mimetypes
import os
import shutil
import socketserver
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote, urlsplit

from mbench.storage.report_folder import PAGE

HOST = "127.0.0.1"

TEXT = "text/plain; charset=utf-8"

KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".csv": "text/csv; charset=utf-8",
    ".svg": "image/svg+xml",
    ".tex": TEXT,
    ".md": TEXT,
    ".lock": TEXT,
}
"""What browsers show of a report, whatever this machine's table of types says."""

RELOADING = """\
<script>
(() => {
  const place = "mbench view " + location.pathname;
  const before = sessionStorage.getItem(place);
  if (before) {
    sessionStorage.removeItem(place);
    addEventListener("load", () => setTimeout(() => {
      scrollTo(...JSON.parse(before));
      history.scrollRestoration = "auto";
    }));
  }
  setInterval(async () => {
    try {
      const answer = await fetch(location.pathname, {method: "HEAD", cache: "no-store"});
      const now = answer.ok && answer.headers.get("ETag");
      if (!now || now === SHOWN) return;
      sessionStorage.setItem(place, JSON.stringify([scrollX, scrollY]));
      history.scrollRestoration = "manual";
      location.reload();
    } catch { /* the server has ended, or the report is just being replaced */ }
  }, 2000);
})();
</script>
"""

WAITING = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>No report yet</title></head>
<body><p>No report in {folder} yet: this page shows it as soon as a run has written one.</p>{below}
</body></html>
"""

BELOW = "<p>In folders within it there are: {links}</p>"


class FolderServer(ThreadingHTTPServer):
    """Listens on the loopback interface; `serve_forever` answers until it is interrupted."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, folder: Path, port: int = 0) -> None:
        """Serve `folder`, which may be replaced meanwhile; port 0: any that is free.

        Raises `OSError` where the port cannot be taken.
        """
        self.folder = folder
        super().__init__((HOST, port), _Answer)

    def server_bind(self) -> None:
        """Without asking for this machine's name, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    @property
    def address(self) -> str:
        """Of the folder."""
        return f"http://{HOST}:{self.server_port}/"

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that goes away in the middle is nothing to tell."""


def find(folder: Path, path: str) -> Path | None:
    """The file or folder that the path of an address means; None where nothing may be given."""
    parts = [part for part in unquote(path).split("/") if part]
    if any(part.startswith(".") or "\\" in part for part in parts):
        return None
    try:
        root = folder.resolve(strict=True)
        place = root.joinpath(*parts).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        return None
    if not place.is_relative_to(root):
        return None
    if any(part.startswith(".") for part in place.relative_to(root).parts):
        return None
    return place if place.is_file() or place.is_dir() else None


def pages_within(folder: Path) -> list[str]:
    """The folders in `folder` that have a page: reports, and folders of reports."""
    names = sorted(page.parent.name for page in folder.glob(f"*/{PAGE}"))
    return [name for name in names if find(folder, f"{quote(name)}/{PAGE}")]


def _waiting(folder: Path) -> str:
    """The page of a folder that has none."""
    links = [f'<a href="{quote(name)}/">{html.escape(name)}</a>' for name in pages_within(folder)]
    below = BELOW.format(links=", ".join(links)) if links else ""
    return WAITING.format(folder=html.escape(str(folder)), below=below)


class _Answer(BaseHTTPRequestHandler):
    """GET and HEAD of one address."""

    server: FolderServer
    server_version, sys_version = "mbench", ""
    timeout = 30

    def do_GET(self) -> None:
        """Send a file."""
        self._answer(whole=True)

    def do_HEAD(self) -> None:
        """Send what GET would say of a file."""
        self._answer(whole=False)

    def log_message(self, format: str, *arguments: object) -> None:
        """The terminal shows the address and nothing else."""

    def _answer(self, *, whole: bool) -> None:
        # Any port: a tunnel from another machine may have its own.
        if self.headers.get("Host", "").partition(":")[0] not in (HOST, "localhost"):
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        path = urlsplit(self.path).path
        place = find(self.server.folder, path)
        if place is not None and place.is_dir():
            if not path.endswith("/"):
                self._redirect(path)
                return
            place = find(self.server.folder, f"{path}{PAGE}")
            if place is None and not path.strip("/"):
                words = _waiting(self.server.folder)
                self._send(BytesIO(), '"none"', KINDS[".html"], words.encode(), whole)
                return
        if place is None or not place.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            with place.open("rb") as file:
                status = os.fstat(file.fileno())
                tag = f'"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"'
                kind = KINDS.get(place.suffix) or mimetypes.guess_type(place.name)[0]
                page = file.read() if place.suffix == ".html" else None
                self._send(file, tag, kind or "application/octet-stream", page, whole)
        except OSError:
            self.close_connection = True

    def _redirect(self, path: str) -> None:
        parts = [quote(part) for part in unquote(path).split("/") if part]
        self.send_response(HTTPStatus.MOVED_PERMANENTLY)
        self.send_header("Location", "/" + "/".join(parts) + "/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, file: BinaryIO, tag: str, kind: str, page: bytes | None, whole: bool) -> None:
        """Send a page with the script, or the file as it is."""
        if page is not None:
            script = RELOADING.replace("SHOWN", json.dumps(tag)).encode()
            before, body, after = page.rpartition(b"</body>")
            page = before + script + body + after if body else page + script
        length = os.fstat(file.fileno()).st_size if page is None else len(page)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.send_header("ETag", tag)
        self.end_headers()
        if whole and page is not None:
            self.wfile.write(page)
        elif whole:
            shutil.copyfileobj(file, self.wfile)

    def end_headers(self) -> None:
        """With what every answer says."""
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()
