"""A place between S3's clients and a server, where requests go wrong as on real networks."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>{}</Message></Error>"

TROUBLES = {
    "slow down": (503, ERROR.format("SlowDown", "Please reduce your request rate.")),
    "not implemented": (501, ERROR.format("NotImplemented", "A header is not implemented")),
}

Trouble = Callable[[BaseHTTPRequestHandler], str]
"""What goes wrong with a request: one of `TROUBLES`, `lost` for an answer that never arrives though
the server did what was asked, `ignored` for a condition that the server never sees, or nothing."""


@contextmanager
def troubled(server_port: int, trouble: Trouble) -> Iterator[str]:
    """The URL of the place."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            what = trouble(self)
            if what in TROUBLES:
                status, text = TROUBLES[what]
                self._answer(status, {}, text.encode())
                return
            if what == "ignored":
                del self.headers["If-None-Match"]
            there = http.client.HTTPConnection("127.0.0.1", server_port)
            there.request(self.command, self.path, body, dict(self.headers))
            answer = there.getresponse()
            content = answer.read()
            there.close()
            if what == "lost":
                self.close_connection = True
                return
            self._answer(answer.status, dict(answer.headers), content)

        def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            length = headers.get("Content-Length", "0") if self.command == "HEAD" else len(content)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_one

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
