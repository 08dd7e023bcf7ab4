"""A lock whose files, plugins, versions or text are not as they were is refused in one line."""

from __future__ import annotations

import json

import pytest

from helpers.command import call


def mbench(place, *arguments):
    return call(*arguments, cwd=place, store=place / "store")


LOCAL = """\
name: local
models: {demo: {plugin: demo, dtype: float32}}
retain: [0.5]
methods: {random: {seeds: [0]}}
perplexity: {ppl: {source: {files: [text.txt]}, protocol: gptq, window: 16}}
"""


PLUGIN = """\
import BESIDE
import mbench

class Mine(mbench.Selector):
    name = "mine"

    def select(self, scores, budget, profiles):
        raise NotImplementedError

@mbench.hookimpl
def mbench_components():
    return [Mine]
"""


def beside(place):
    return f"beside_{place.name}"


@pytest.fixture
def local(tmp_path):
    """A folder with a lock of local files and a plugin."""
    (tmp_path / "suite.yaml").write_text(LOCAL)
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog " * 40)
    # This process knows one module of a name.
    (tmp_path / "plugin.py").write_text(PLUGIN.replace("BESIDE", beside(tmp_path)))
    (tmp_path / f"{beside(tmp_path)}.py").write_text("VALUE = 1\n")
    words = ("lock", "suite.yaml", "--output", "my.lock", "--plugin", "plugin.py")
    assert mbench(tmp_path, *words).returncode == 0
    return tmp_path


def changed_text(place):
    (place / "text.txt").write_text("something else " * 100)


def without_text(place):
    (place / "text.txt").unlink()


def changed_plugin(place):
    (place / f"{beside(place)}.py").write_text("VALUE = 2\n")


def without_plugin(place):
    (place / "plugin.py").rename(place / "elsewhere.py")


def edited(place):
    text = (place / "my.lock").read_text()
    (place / "my.lock").write_text(text.replace('"window": 16', '"window": 32'))


def cut_off(place):
    text = (place / "my.lock").read_text()
    (place / "my.lock").write_text(text[: len(text) // 2])


def edited_and_written_by_another_program(place):
    data = json.loads((place / "my.lock").read_text())
    data["suite"]["name"] = "other"
    (place / "my.lock").write_text(json.dumps(data))


def with_an_endless_number(place):
    text = (place / "my.lock").read_text()
    (place / "my.lock").write_text(text.replace('"window": 16', '"window": ' + "1" * 5000))


def other_version(place):
    relock(place, lambda data: data["versions"]["packages"].update(torch="1.0.0"))


def other_code(place):
    relock(place, lambda data: data["versions"]["code"].update(moe="0" * 64))


def relock(place, change):
    """A lock as another machine would have written it."""
    from mbench.plan.lock import Lock
    from mbench.storage.records import from_plain

    data = json.loads((place / "my.lock").read_text())
    change(data)
    sections = {name: data[name] for name in data if name not in ("about", "checksums")}
    (place / "my.lock").write_text(from_plain(Lock, sections).to_text())


@pytest.mark.parametrize(
    ("change", "options", "parts"),
    [
        (changed_text, (), ["text.txt", "expected sha256", "found"]),
        (without_text, (), ["text.txt", "No such file", "working directory"]),
        (changed_plugin, (), ["beside_", "expected sha256", "found"]),
        (without_plugin, (), ["plugin.py is missing", "--plugin"]),
        (edited, (), ["my.lock:", "'suite' was changed"]),
        (edited_and_written_by_another_program, (), ["my.lock:1:", "'suite' was changed"]),
        (with_an_endless_number, (), ["my.lock", "cannot be read"]),
        (cut_off, (), ["my.lock:", "damaged"]),
        (other_version, (), ["torch is 1.0.0 in the lock", "pip install torch==1.0.0"]),
        (other_code, (), ["mbench's code in moe"]),
        (None, ("--set", "retain=[0.25]"), ["run as it is", "--set"]),
        (None, ("--method", "reap"), ["run as it is", "--method"]),
    ],
)
def test_what_is_not_as_in_the_lock_is_refused_in_one_line(local, change, options, parts):
    if change is not None:
        change(local)
    for verb in ("plan", "run"):
        done = mbench(local, verb, "my.lock", *options)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        for part in parts:
            assert part in line
    assert not (local / "reports").exists()


def test_a_plugin_that_was_moved_is_given_again(local):
    (local / "there").mkdir()
    for name in ("plugin.py", f"{beside(local)}.py"):
        (local / name).rename(local / "there" / name)
    assert mbench(local, "plan", "my.lock", "--plugin", "there/plugin.py").returncode == 0
