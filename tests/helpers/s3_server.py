"""An S3 server of this process, which can be stopped and started with what it holds."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

BUCKET = "bucket"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


class S3Server:
    """Moto, reached over HTTP as any other."""

    def __init__(self) -> None:
        # Bound twice, it is nobody else's while the server is stopped.
        self._kept = socket.socket()
        self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._kept.bind(("127.0.0.1", 0))
        self._port = self._kept.getsockname()[1]
        self.start()

    def start(self) -> None:
        """Serve, on the same port as before."""
        import logging

        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        self._server = ThreadedMotoServer("127.0.0.1", self._port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        """Refuse connections; what is stored stays."""
        self._server.stop()

    def end(self) -> None:
        """Stop, and let others have the port."""
        self.stop()
        self._kept.close()

    def deny(self) -> None:
        """Refuse whoever asks."""
        self._control("reset-auth", b"0")

    def allow(self) -> None:
        """Ask nobody who they are."""
        self._control("reset-auth", b"inf")

    def forget(self) -> None:
        """Begin with nothing."""
        self._control("reset")

    def _control(self, what: str, data: bytes = b"") -> None:
        url, kind = f"{self.url}/moto-api/{what}", {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(url, data, kind)).close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def environment(self) -> dict[str, str]:
        """With which other processes find it."""
        return {**KEYS, "FSSPEC_S3_ENDPOINT_URL": self.url}

    def client(self):
        """To look at what is there, and change it, beside the code under test."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )


@contextmanager
def s3_server(monkeypatch) -> Iterator[S3Server]:
    """A server with an empty bucket, known to this process and those it starts."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    import fsspec.config

    server = S3Server()
    server.forget()
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    few = {"retries": {"max_attempts": 1}}
    settings = {"endpoint_url": server.url, "config_kwargs": few}
    monkeypatch.setitem(fsspec.config.conf, "s3", settings)
    server.client().create_bucket(Bucket=BUCKET)
    try:
        yield server
    finally:
        server.allow()
        server.end()
