"""Nothing that a run prints or writes has controls, credentials, or tells who ran it."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import resource
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from helpers.forked import Forked
from helpers.tiny_suite import SUITE
from mbench.core.clean_text import CONTROLS
from mbench.storage.results_folder import read, to_csv

NAME = "some-user-name"
SECRETS = ("hf_SECRETsecret123", "very secret words", "sk-Live0123456789", "hunter2pw")

# What it says reaches status, page and terminal; what it prints, the terminal.
PLUGIN = """
import os, sys
import mbench

TEXT = (
    f"\\x1b[31mred\\x1b[0m \\x9b1m \\u202ereversed \\ud800 in {os.path.expanduser('~')}/x of"
    f" {os.environ['HF_TOKEN']}, Bearer sk-Live0123456789, https://me:hunter2pw@host/, "
    f"{os.environ['MY_SECRET']}, Gr\\xf6\\xdfe \\u4e2d\\u6587\\u2028next"
)

class Broken(mbench.Scorer):
    name = "broken"
    needs = (mbench.RoutingSums(),)
    def score(self, profile):
        print("printed", TEXT)
        print("printed", TEXT, file=sys.stderr)
        raise ValueError(TEXT)

@mbench.hookimpl
def mbench_components():
    return [Broken]

@mbench.hookimpl
def mbench_methods():
    return [mbench.Method("broken", scorer="broken", corpora=1)]

@mbench.hookimpl
def mbench_panels(results):
    import pandas as pd
    return [mbench.Panel("Told " + TEXT, pd.DataFrame({TEXT: [TEXT]}))]
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The home folder of somebody, with a suite, a plugin and a store below it."""
    home = tmp_path_factory.mktemp("far") / "home" / NAME
    home.mkdir(parents=True)
    suite = yaml.safe_load(SUITE)
    suite["methods"] = {"random": None, "broken": {"corpora": ["bible"]}}
    del suite["tasks"]
    suite["description"] = f"\u2066For\u2028{home}/notes by {SECRETS[0]}"
    suite["title"] = "A \u202etitle\u2029 中文"
    (home / "tiny.yaml").write_text(yaml.safe_dump(suite))
    (home / "broken.py").write_text(PLUGIN)
    return home


def environment(home):
    return {
        **os.environ,
        "HOME": str(home),
        "USER": NAME,
        "LOGNAME": NAME,
        "OMP_NUM_THREADS": "1",
        "MBENCH_STORE": str(home / "store"),
        "HF_TOKEN": SECRETS[0],
        "MY_SECRET": SECRETS[1],
    }


def command(home, *words):
    return Forked(*words, cwd=home, store=home / "store", environment=environment(home)).ended()


WORDS = ("tiny.yaml", "--plugin", "broken.py")


@pytest.fixture(scope="module")
def finished(home):
    """The run, told of its files by their full paths."""
    return command(home, "run", str(home / "tiny.yaml"), "--plugin", str(home / "broken.py"))


def assert_clean(text):
    for secret in (*SECRETS, NAME):
        assert secret not in text, text[max(0, text.index(secret) - 200) :][:300]
    found = CONTROLS.search(text)
    assert found is None, repr(text[max(0, found.start() - 100) :][:200])


def test_what_a_run_prints(home, finished):
    assert finished.returncode == 3, finished.stderr
    said = finished.stderr
    assert_clean(said)
    assert "printed \\x1b[31mred\\x1b[0m" in said
    assert "raised ValueError: \\x1b[31mred\\x1b[0m \\x9b1m \\u202ereversed \\ud800 in" in said
    assert "Größe 中文" in said
    assert "~/x of ***, Bearer ***, https://***@host/, ***, " in said
    assert finished.stdout == "reports/tiny/index.html\n"


def test_what_a_run_writes(home, finished):
    folder = home / "reports" / "tiny"
    names = {path.name for path in folder.iterdir()}
    assert len(names) >= 7
    for path in [*folder.rglob("*"), home / "reports" / "index.html"]:
        if path.is_file() and path.suffix not in (".parquet", ".safetensors"):
            assert_clean(path.read_text())
    items = folder.joinpath("items.parquet").read_bytes()
    assert not any(secret.encode() in items for secret in (*SECRETS, NAME))
    record = read(folder).provenance.runs[0]
    assert record.command == ("mbench", "run", "~/tiny.yaml", "--plugin", "~/broken.py")
    (reason,) = {cell.reason for cell in read(folder).cells if cell.status == "failed"}
    assert "raised ValueError: \\x1b[31mred\\x1b[0m " in reason
    assert "Größe 中文" in reason
    assert "~/broken.py:" in reason


@pytest.mark.parametrize(
    "words",
    [
        ("run", *WORDS, "--json"),
        ("report", "reports/tiny", "--plugin", "broken.py"),
        ("report", "reports/tiny", "--format", "latex"),
        ("plan", *WORDS),
        ("check", *WORDS, "--json"),
        ("run", f"/home/{NAME}/no\x1b[31m.yaml"),
        ("compare", "reports/tiny", "--methods", "random", "bro\x1bken"),
    ],
)
def test_other_output(home, finished, words):
    done = command(home, *words)
    assert_clean(done.stdout + done.stderr)
    if "--json" in words:
        for line in done.stdout.splitlines():
            assert_clean(" ".join(strings(json.loads(line))))
    else:
        assert done.stdout or done.stderr.count("\n") == 1


def strings(value):
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from (key, *strings(entry))
    elif isinstance(value, list):
        for entry in value:
            yield from strings(entry)
    elif isinstance(value, str):
        yield value


def test_a_terminal_gets_no_other_codes_than_those_of_the_display(home, finished):
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "mbench", "run", *WORDS, "--output", "other"],
        cwd=home,
        env={**environment(home), "TERM": "xterm", "COLUMNS": "300"},
        stdout=slave,
        stderr=slave,
    ):
        os.close(slave)
        parts = []
        while True:
            try:
                parts.append(os.read(master, 65536))
            except OSError:  # the other end is closed
                break
    os.close(master)
    text = b"".join(parts).decode()
    assert "\x1b[" in text
    # Colours, cursor up, erase line, cursor off and on, as rich prints them.
    rest = re.sub(r"\x1b\[(?:[0-9;]*m|\d*A|2K|\?25[lh])|\r", "", text)
    assert_clean(rest)
    assert "\x1b[31mred" not in text
    assert "printed \\x1b[31mred" in re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_text_that_a_spreadsheet_would_run_is_text():
    names = ["=1+1", "+a", "-a", "@a", "\t=1", "a=1", "中\x1b"]
    table = pd.DataFrame(
        {"method": names, "value": [-1.0] * 7, "items": pd.array([-1] * 7, "Int64")}
    )
    rows = list(csv.DictReader(io.StringIO(to_csv(table))))
    expected = ["'=1+1", "'+a", "'-a", "'@a", "'\t=1", "a=1", "中\\x1b"]
    assert [row["method"] for row in rows] == expected
    assert {row["value"] for row in rows} == {"-1.0"}
    assert {row["items"] for row in rows} == {"-1"}


def test_output_that_nobody_can_read_costs_nothing_else(home, finished, tmp_path):
    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))

    run = [sys.executable, "-m", "mbench", "suites"]
    with open(tmp_path / "full", "wb") as full:
        done = subprocess.run(
            run, stdout=full, stderr=subprocess.PIPE, preexec_fn=small_files, env=environment(home)
        )
    assert (done.returncode, done.stderr) == (2, b"error: cannot print: File too large\n")
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(run, stdout=writer, stderr=subprocess.PIPE, env=environment(home))
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
