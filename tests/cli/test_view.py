"""`mbench view`: what a browser is given, what it is not, and that open pages follow a run."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from unittest import mock

import pytest

from helpers.browsing import PATIENCE
from helpers.command import call
from helpers.held import LONG
from helpers.tiny_suite import SUITE
from mbench.api import run_report
from mbench.cli.served_folder import FolderServer
from mbench.report import publish

PAGE = "<!doctype html><title>one</title><body style='height: 9000px'><h1>{}</h1></body>"


@pytest.fixture
def folder(tmp_path):
    """Reports, beside them and inside what must not be served."""
    reports = tmp_path / "reports"
    (reports / "one" / "items").mkdir(parents=True)
    (reports / "one" / "index.html").write_text(PAGE.format("first"))
    (reports / "one" / "results.json").write_text("{}")
    (reports / "one" / "items" / "quiz.js").write_text("items()")
    (reports / "one" / ".hidden").write_text("secret")
    (tmp_path / "secret.txt").write_text("secret")
    (reports / "out").symlink_to(tmp_path / "secret.txt")
    (reports / "up").symlink_to(tmp_path)
    (reports / "dotted").symlink_to(reports / "one" / ".hidden")
    os.mkfifo(reports / "pipe")
    return reports


@contextlib.contextmanager
def served(folder):
    server = FolderServer(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        with server:
            yield server
            server.shutdown()
    finally:
        thread.join()


def ask(server, path, method="GET", **headers):
    """The path as it is: clients would take its dots away."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=LONG)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    return answer, answer.read()


def test_a_report_is_served_with_a_script_that_no_file_has(folder):
    with served(folder) as server:
        answer, body = ask(server, "/one/")
        assert answer.status == 200
        assert answer.getheader("Content-Type") == "text/html; charset=utf-8"
        assert answer.getheader("Cache-Control") == "no-store"
        assert body.startswith(PAGE.format("first").removesuffix("</body>").encode())
        assert b"location.reload()" in body
        assert answer.getheader("ETag").encode().strip(b'"') in body
        head, nothing = ask(server, "/one/index.html", "HEAD")
        assert (head.getheader("ETag"), nothing) == (answer.getheader("ETag"), b"")
        assert int(head.getheader("Content-Length")) == len(body)
        assert ask(server, "/one/items/quiz.js?x=1")[1] == b"items()"
        moved, _ = ask(server, "//one")
        assert (moved.status, moved.getheader("Location")) == (301, "/one/")
        (folder / "one" / "index.html").write_text(PAGE.format("second"))
        assert ask(server, "/one/", "HEAD")[0].getheader("ETag") != answer.getheader("ETag")
    assert (folder / "one" / "index.html").read_text() == PAGE.format("second")


@pytest.mark.parametrize(
    "path",
    [
        *("/../secret.txt", "/%2e%2e/secret.txt", "/one/../../secret.txt", "/..%2fsecret.txt"),
        *("/out", "/up/secret.txt", "/up/", "/dotted", "/one/.hidden", "/one/%2ehidden"),
        *("/pipe", "/one/items/", "/nothing", "/one/index.html/x", "/%00", "/..%5csecret.txt"),
        "//" + "a/" * 3000,
    ],
)
def test_nothing_but_files_inside_the_folder_is_served(folder, path):
    with served(folder) as server:
        answer, body = ask(server, path)
        assert answer.status == 404
        assert b"secret" not in body.replace(path.encode(), b"")


def test_a_folder_without_a_page_links_those_within(folder):
    (folder / "a b").mkdir()
    (folder / "a b" / "index.html").write_text(PAGE.format("list"))
    with served(folder) as server:
        _, body = ask(server, "/")
        assert b"No report in" in body
        assert re.findall(rb'href="(.*?)"', body) == [b"a%20b/", b"one/"]


def test_only_this_machine_and_only_under_its_own_name(folder):
    with served(folder) as server:
        assert server.server_address[0] == "127.0.0.1"
        assert ask(server, "/one/", Host=f"localhost:{server.server_port}")[0].status == 200
        assert ask(server, "/one/", Host="localhost:1234")[0].status == 200  # through a tunnel
        for host in ("evil.example", f"evil.example:{server.server_port}", ""):
            assert ask(server, "/one/", Host=host)[0].status == 403
        assert ask(server, "/one/", "POST")[0].status == 501


def view(*words, cwd):
    return subprocess.Popen(
        [sys.executable, "-m", "mbench", "view", *map(str, words), "--no-open"],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Started in the background of a shell, tests ignore Ctrl-C, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_verb_prints_the_address_of_the_one_report_and_ends_quietly(folder, number):
    process = view(cwd=folder.parent)
    address = process.stdout.readline().strip()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/one/", address)
    with urllib.request.urlopen(address, timeout=LONG) as page:
        assert b"first" in page.read()
    process.send_signal(number)
    out, err = process.communicate(timeout=LONG)
    assert (process.returncode, out, err) == (0, "", "ended\n")


def test_the_browser_is_opened_on_what_there_is(folder, tmp_path):
    def opened(*words):
        with (
            mock.patch("webbrowser.open") as browser,
            mock.patch.object(FolderServer, "serve_forever", side_effect=KeyboardInterrupt),
        ):
            done = call("view", *map(str, words), cwd=tmp_path, store=tmp_path / "s")
            for _ in range(3000):
                if browser.called or "--no-open" in words:
                    break
                time.sleep(0.01)
        assert done.returncode == 0, done.stderr
        shown = [each.args[0] for each in browser.call_args_list]
        assert shown == ([] if "--no-open" in words else [done.stdout.strip()])
        return re.sub(r".*:\d+", "", done.stdout.strip())

    assert opened() == "/one/"
    assert opened("reports/one") == "/"
    assert opened("reports/one", "--no-open") == "/"
    (folder / "mine").mkdir()
    (folder / "mine" / "index.html").write_text("a list of reports")
    assert opened("reports") == "/"
    shutil.rmtree(folder / "one")
    assert opened("reports") == "/mine/"


def test_mistakes_are_one_line(folder, tmp_path):
    for words, message in (
        (["nowhere"], "nowhere is no folder: give a report's"),
        (["reports/ome"], "reports/ome is no folder; did you mean 'reports/one'?"),
        (["reports/one/index.html"], "is no folder: give a report's"),
        (["--port", "0"], "not in the range 1<=x<=65535"),
    ):
        done = call("view", *words, cwd=tmp_path, store=tmp_path / "s")
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = call("view", "--port", port, cwd=tmp_path, store=tmp_path / "s")
    assert done.returncode == 2
    assert f"--port {port}: 127.0.0.1 cannot listen there" in done.stderr


def test_an_open_page_follows_its_report_and_stays_where_it_was(browser, folder):
    (folder / "one" / "index.html").unlink()
    with served(folder / "one") as server:
        tab = browser.new_page()
        tab.set_default_timeout(PATIENCE)
        tab.goto(server.address + "#at=here")
        assert "No report in" in tab.inner_text("body")
        (folder / "one" / "index.html").write_text(PAGE.format("first"))
        tab.wait_for_selector("h1:has-text('first')")
        tab.evaluate("scrollTo(0, 4321)")
        (folder / "one" / "index.html").write_text(PAGE.format("second"))
        tab.wait_for_selector("h1:has-text('second')")
        tab.wait_for_function("scrollY === 4321")
        assert tab.url.endswith("/#at=here")
        tab.close()


def test_a_run_writes_its_report_while_it_goes_on(tmp_path):
    (tmp_path / "tiny.yaml").write_text(SUITE)
    statuses, original = [], publish.publish

    def watched(results, directory, *panels, **options):
        written = original(results, directory, *panels, **options)
        counts = json.loads((directory / "verdict.json").read_text())["evaluations"]
        statuses.append((counts.get("ok", 0), counts.get("pending", 0)))
        return written

    with (
        mock.patch.object(run_report, "EVERY", 0.0),
        mock.patch.object(run_report, "SHARE", 1e9),
        mock.patch.object(publish, "publish", watched),
    ):
        done = call("run", "tiny.yaml", cwd=tmp_path, store=tmp_path / "s")
    assert done.returncode == 0, done.stderr
    assert len(statuses) == 1 + 11  # each distinct mask, then all
    assert [ok for ok, _ in statuses] == sorted(ok for ok, _ in statuses)
    assert all(ok + pending == 26 for ok, pending in statuses)
    assert statuses[0] == (2, 24)
    assert statuses[-1] == (26, 0)


def test_a_report_that_cannot_be_written_meanwhile_does_not_end_the_run(tmp_path):
    (tmp_path / "tiny.yaml").write_text(SUITE)
    written, original = [], publish.publish

    def failing(results, *words, **options):
        written.append(results)
        if len(written) == 1:
            raise OSError("no space")
        return original(results, *words, **options)

    with (
        mock.patch.object(run_report, "EVERY", 0.0),
        mock.patch.object(publish, "publish", failing),
    ):
        done = call("run", "tiny.yaml", cwd=tmp_path, store=tmp_path / "s")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("warning: no report before the run ends: no space") == 1
    assert len(written) == 2
