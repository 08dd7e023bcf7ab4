"""Whatever a suite or an option holds, `mbench check` ends soon, with one line if it is wrong."""

from __future__ import annotations

import os
import re
import socket
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import strategies as st

from helpers.command import call
from helpers.odd_values import (
    RAW,
    SCALARS,
    TooLong,
    block,
    places_of_errors,
    stopped_after,
    try_many,
    with_damage,
    with_mistakes,
)

SUITE = """\
name: tiny
title: Tiny
models:
  demo: {plugin: demo, dtype: float32}
retain: [0.25, 0.5]
router: sliced
seeds: [0, 1]
corpora:
  wiki: {source: {plugin: wiki, split: calibration}, sequences: 8, length: 64, packing: document}
  own: {source: {files: [own.jsonl], field: text}, sequences: 2, length: 8, join: ' ', seed: 1}
calibration: [wiki, own]
candidates:
  expert-sparsity: {corpora: [wiki]}
methods:
  random: {seeds: [3]}
  reap: {corpora: [wiki], router: preserved}
  two: {use: reap, corpora: [own], scorer: {name: reap}, models: {demo: {selector: top-k}}}
  tb-coverage: {selector: {protected: 8}}
perplexity:
  ppl-wiki: {source: {plugin: wiki, split: evaluation}, protocol: gptq, window: 128, max_windows: 4}
  ppl-own: {source: {files: [own.jsonl]}, window: 16, stride: 8, expect_tokens: 100}
tasks:
  cloze_wiki: {metric: acc, limit: 20, num_fewshot: 0}
  cloze: {task: cloze_bible, expect: {items: 480, tokens: 9000}}
average: {name: Avg, tasks: [cloze_wiki, cloze]}
efficiency: {prompt_tokens: 16, new_tokens: 2, batch_size: 2, repetitions: 3}
batch_tokens: 4096
processes: 1
"""
TREE = yaml.safe_load(SUITE)
SECONDS = 30.0
"""Of the processor, on a slow machine; looking at all of the suite anew takes a second."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    (folder / "own.jsonl").write_text('{"text": "some words of a document"}\n' * 3)
    (folder / "good.yaml").write_text(SUITE)
    (folder / "reports").mkdir()
    (folder / "odd.yaml").write_text(SUITE)
    done = call("check", "odd.yaml", cwd=folder, store=folder / "s")
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def checked(folder: Path, *words: str) -> tuple[int, str | None]:
    """`mbench check` with these words: its exit status, and what is wrong with how it ended."""
    started = time.process_time()
    try:
        with stopped_after(5 * SECONDS):
            done = call("check", *words, cwd=folder, store=folder / "s")
    except TooLong:
        return 1, "does not end"
    # Whatever gets here is what a user would see as a traceback.
    except BaseException as error:
        return 1, f"traceback: {type(error).__name__} at {places_of_errors(error)}"
    seconds = time.process_time() - started
    lines = done.stderr.splitlines()
    if seconds > SECONDS:
        return done.returncode, f"took {round(seconds)} s"
    if done.returncode not in (0, 2, 3):
        return done.returncode, f"exit status {done.returncode}: {lines[-1:]}"
    if len(lines) > 20 or "Traceback" in done.stderr:
        return done.returncode, f"{len(lines)} lines"
    if done.returncode == 2:
        at = next((n for n, line in enumerate(lines) if line.startswith("error: ")), len(lines))
        # Of inputs that are refused after all were looked at, each has a line.
        errors = lines[at:]
        if not errors or any("odd.yaml:" not in line for line in errors[1:]):
            return 2, f"not one line: {re.sub('[0-9]+', '0', lines[0])[:60] if lines else 'none'}"
        if len(errors[0]) > 3000:
            return 2, "a line of more than 3000 characters"
        if not re.search(r"odd\.yaml|--(set|model|text|task|limit|retain|method)", errors[0]):
            return 2, f"names no place: {re.sub(r'[0-9]+', '0', errors[0])[:60]}"
    return done.returncode, None


PLACES = [
    *("name", "title", "models", "models.demo", "models.demo.plugin", "models.other", "retain"),
    *("retain.0", "retain.9", "retain.-1", "retain.²", "seeds", "seeds.0", "corpora.wiki.source"),
    *("corpora.wiki.source.files", "corpora.wiki.length", "corpora.typo.length", "calibration"),
    *("methods.reap.corpora", "methods.typo.corpora", "methods.reap.scorer.variant", "methods.a.b"),
    *("tasks.cloze.limit", "tasks.cloze_wiki", "tasks.x", "perplexity.ppl-wiki.window", "average"),
    *(
        "average.tasks",
        "efficiency.batch_size",
        "processes",
        "batch_tokens",
        "",
        ".",
        "a.b",
        "..",
        "=",
    ),
    *("name.x", "retain.0.x", "x" * 300, "a." * 3000, "methods.reap.models.typo.scorer"),
]
texts = st.one_of(
    st.sampled_from(RAW),
    st.sampled_from([each for each in SCALARS if isinstance(each, str) and "\0" not in each]),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
    st.just("\udcff"),
)
options = st.one_of(
    st.tuples(st.just("--set"), st.builds("{}={}".format, st.sampled_from(PLACES), texts)),
    st.tuples(
        st.sampled_from(["--model", "--text", "--task"]),
        st.builds(
            "{}{}{}".format,
            st.sampled_from(["demo", "wiki", "ppl-own", "cloze", "typo", ""]) | texts,
            st.sampled_from(["=", "=", "=", "", "=="]),
            st.sampled_from(["own.jsonl", "good.yaml", ".", "/dev/zero", "reports", "a/b"]) | texts,
        ),
    ),
    st.tuples(st.sampled_from(["--retain", "--limit", "--method"]), texts),
)


@pytest.mark.parametrize("examples", [100, pytest.param(3400, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", ["structure", "text", "options"])
def test_no_suite_ends_in_a_traceback(kind, examples, folder):
    inputs = {
        "structure": with_mistakes(TREE, most=2).map(lambda tree: block(tree)),
        "text": with_damage(SUITE),
        "options": st.lists(options, min_size=1, max_size=2),
    }[kind]

    def attempt(given):
        words = ["odd.yaml"]
        if kind == "options":
            words = ["odd.yaml", *(f"{name}={value}" for name, value in given)]
            (folder / "odd.yaml").write_text(SUITE)
        else:
            data = given if isinstance(given, bytes) else given.encode("utf-8", "surrogatepass")
            (folder / "odd.yaml").write_bytes(data)
        return checked(folder, *words)

    trials = try_many(inputs, attempt, examples)
    assert not trials.problems, trials.report()


def folder_itself(path):
    path.mkdir()


def pipe(path):
    os.mkfifo(path)


def device(path):
    path.symlink_to("/dev/zero")


def listening(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def loop(path):
    path.symlink_to(path)


def huge(path):
    with path.open("wb") as file:
        file.truncate(10**8)


def utf_16(path):
    path.write_text(SUITE, encoding="utf-16")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (folder_itself, "Is a directory"),
        (pipe, "it is no regular file"),
        (device, "it is no regular file"),
        (listening, "No such device or address"),
        (loop, "Too many levels of symbolic links"),
        (huge, "it has more than 262 144 bytes"),
        (utf_16, "not UTF-8 text (line 1)"),
    ],
)
def test_what_is_no_text_file_is_no_suite(make, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the names of sockets are short
    make(Path("odd.yaml"))
    status, problem = checked(tmp_path, "odd.yaml")
    assert (status, problem) == (2, None)
    line = call("check", "odd.yaml", cwd=tmp_path, store=tmp_path / "s").stderr
    assert line == f"error: odd.yaml: cannot be read: {reason}\n"


def test_a_byte_order_mark_and_line_ends_of_windows_are_read(folder):
    (folder / "odd.yaml").write_bytes(SUITE.replace("\n", "\r\n").encode("utf-8-sig"))
    assert checked(folder, "odd.yaml") == (0, None)


def test_what_nobody_foresaw_is_called_a_bug(folder, monkeypatch):
    def fail(*_):
        raise KeyError("a\nb")

    monkeypatch.setattr("mbench.plan.shipped.find_suite", fail)
    done = call("check", "good.yaml", cwd=folder, store=folder / "s")
    assert done.returncode == 70
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: a bug of mbench in api/request.py:")
    assert "KeyError" in line
    debugged = call("--debug", "check", "good.yaml", cwd=folder, store=folder / "s").stderr
    assert "Traceback" in debugged
    assert debugged.endswith(done.stderr)
