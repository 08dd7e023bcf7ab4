"""A suite that is wrong is refused in one line that says where and what would be right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from helpers.odd_values import bomb
from helpers.places import ROOT
from mbench.core.errors import MbenchError
from mbench.plan.cells import kept_experts
from mbench.plan.suite_file import load_suite

SUITES = ROOT / "suites"

GOOD = """\
name: tiny
models:
  demo: {plugin: demo}
retain: [0.25, 0.5]
corpora:
  wiki: {source: {plugin: wiki, split: calibration}, sequences: 4, length: 32}
calibration: [wiki]
methods:
  random:
  reap: {corpora: [wiki]}
tasks:
  cloze_wiki: {metric: acc}
average: {tasks: [cloze_wiki]}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "suite.yaml"
    path.write_text(text)
    return path


def test_the_suites_of_the_project_are_valid():
    for path in SUITES.glob("*.yaml"):
        suite, _ = load_suite(path)
        assert suite.name == path.stem


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("retain: [0.25", "retian: [0.25", ":4:1: unknown key 'retian'; did you mean 'retain'?"),
        ("[0.25, 0.5]", "[0.25, 1.5]", ":4:16: retain.1: input should be less than 1, got 1.5"),
        ("[0.25, 0.5]", "[0.25, 0]", ":4:16: retain.1: input should be greater than 0, got 0"),
        ("[0.25, 0.5]", "[0.5, 0.5]", ":4:15: 0.5 is listed twice"),
        ("[0.25, 0.5]", "half", ":4:1: retain: input should be a list, got 'half'"),
        ("[0.25, 0.5]", "50", "got 50; a list of one is [50]"),
        ("name: tiny", "name: tiny\nname: two", ':2:1: found duplicate key "name"'),
        ("name: tiny", "name: ../tiny", ":1:1: name: string should match pattern"),
        ("reap: {corpora: [wiki]}", "reap: {corpora: [wikki]}", ":10:20: unknown corpus 'wikki'"),
        ("calibration: [wiki]", "calibration: [c4]", "unknown corpus 'c4' (valid: wiki)"),
        (
            "cloze_wiki: {metric: acc}",
            "chat: {chat: {sytem: A}}",
            "unknown key 'sytem'; did you mean 'system'? (valid: date, multiturn, options, system,",
        ),
        (
            "calibration: [wiki]",
            "calibration: [wiki]\nchat: {date: today}",
            "chat.date: a day is written as 2026-01-31, got 'today'",
        ),
        (
            "calibration: [wiki]",
            "calibration: [wiki]\nchat: {options: {x: [1]}}",
            "chat.options.x: a template's value is true, false, a number or a text",
        ),
        (
            "calibration: [wiki]",
            "calibration: [wiki]\nchat: {system: ''}",
            "chat.system: string should have at least 1 character, got ''",
        ),
        ("metric: acc", "metric: 3", ":12:16: tasks.cloze_wiki.metric: input should be a valid"),
        ("tasks: [cloze_wiki]", "tasks: [cloze]", "unknown task 'cloze'; did you mean"),
        ("sequences: 4, ", "", ":6:3: missing key 'sequences'"),
        ("{plugin: demo}", "{plugin: demo, hub: x/y}", "give exactly one of hub, path, plugin"),
        ("random:\n", "none:\n", "'none' is the unpruned model"),
        ("name: tiny", "name: [tiny", "expected ',' or ']'"),
        (GOOD, "- 1\n", ":1:1: a suite is a mapping of keys to values"),
        (GOOD, "", ":1:1: a suite is a mapping of keys to values"),
        (GOOD, GOOD + "---\n" + GOOD, "expected a single document"),
        ("tasks: [cloze_wiki]", "tasks: []", ":13:11: average.tasks: give at least one"),
        ("length: 32", "length: 1e12", ":6:68: corpora.wiki.length: input should be a valid int"),
        ("length: 32", f"length: {10**12}", "less than or equal to 16777216, got 1000000000000"),
        ("sequences: 4", f"sequences: {2**25}", "sequences of 32 tokens are more than the 2684"),
        ("{plugin: demo}", "{plugin: demo, revision: a}", ":3:3: models.demo: revision means not"),
        ("{plugin: demo}", "{path: a, revision: b}", ":3:3: models.demo: revision means nothing"),
        ("plugin: wiki, ", "plugin: wiki, subset: a, ", "subset means nothing without hub"),
        ("plugin: wiki, ", "files: [a], ", "split means nothing beside files"),
        ("{plugin: demo}", "{hub: ../x}", "models.demo.hub: string should match pattern"),
        ("random:\n", "random: {seeds: [-1]}\n", "seeds.0: input should be greater than or equal"),
        ("calibration: [wiki]", "calibration: &a [*a]", ":7:18: *a contains itself"),
        ("name: tiny", "x: &x {<<: *x}\nname: tiny", ":1:12: *x contains itself"),
        ("name: tiny", f"name: {bomb()}", "more than 10000 values with all its aliases"),
        ("name: tiny", "name: " + "[" * 5000, ":1:46: nested deeper than 40 levels"),
        ("name: tiny", "name: !!python/name:os.system", ":1:7: tags (!) mean nothing here"),
        ("name: tiny", "name: !!set {a}", ":1:7: tags (!) mean nothing here"),
        ("name: tiny", "name: tiny\n[a]: b", ":2:1: a key must be text"),
        ("name: tiny", "name: tiny\n1: b", ":2:1: a key must be text: write '1' in quotes"),
        ("name: tiny", "name: 2020-13-45", ":1:7: this is no timestamp: '2020-13-45'"),
        ("name: tiny", f"name: {'9' * 5000}", ":1:7: this is no int: '999"),
        ("name: tiny", 'name: "\\ud800"', ":1:7: the text holds the character U+D800"),
        ("name: tiny", 'title: "\\e[31m"\nname: tiny', ":1:8: the text holds the character U+001B"),
        ("name: tiny", "title: a\x07b\nname: tiny", ":1:9: the character U+0007 is no text"),
        ("name: tiny", "\tname: tiny", "found character '\\t' that cannot start any token"),
        ("name: tiny", f"name: {'x' * 90000}", "should have at most 80 characters"),
        (
            "name: tiny",
            "name: tiny\nbatch_tokens: abc",
            ": expected a whole number or auto, got 'abc'",
        ),
        (
            "name: tiny",
            "name: tiny\nbatch_tokens: [1]",
            ":2:1: batch_tokens: expected a whole number",
        ),
        ("name: tiny", "name: tiny\nbatch_tokens: 0", "batch_tokens: input should be greater than"),
        ("[0.25, 0.5]", "[0.5, .nan]", ":4:15: retain.1: input should be"),
        (
            "methods:\n",
            "methods:\n  expert-sparsity: {}\ncandidates: {random: {}}\nx:\n",
            "key 'x'",
        ),
        ("methods:\n", "candidates: {reap: {}}\nmethods:\n", ":8:14: 'reap' is also a method"),
    ],
)
def test_mistakes_are_one_line_with_place_and_choices(tmp_path, old, new, message):
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(MbenchError) as caught:
        load_suite(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}:")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            "window: 64",
            ":12:3: perplexity.wiki.stride: protocol 'sliding' needs a stride .*, got nothing",
        ),
        ("window: 64, stride: 64", ":12:46: .*needs a stride from 1 to 63, .*, got 64"),
        ("stride: 0", ":12:34: .*stride: input should be greater than or equal to 1, got 0"),
        ("protocol: gptq, stride: 3", ":12:50: .*stride: protocol 'gptq' takes no stride, got 3"),
        ("window: 1", ":12:34: .*window: input should be greater than or equal to 2, got 1"),
        ("protocol: c4", "protocol: input should be 'sliding', 'gptq' or 'document', got 'c4'"),
    ],
)
def test_windows_of_a_text_that_cannot_be_are_refused_where_they_stand(tmp_path, settings, message):
    text = GOOD.replace(
        "tasks:\n", f"perplexity:\n  wiki: {{source: {{plugin: wiki}}, {settings}}}\ntasks:\n"
    )
    with pytest.raises(MbenchError, match=message):
        load_suite(write(tmp_path, text))


def test_a_missing_file_names_those_that_exist(tmp_path):
    write(tmp_path, GOOD)
    (tmp_path / ".hidden.yaml").write_text(GOOD)
    (tmp_path / "another.yaml").write_text("repos: []\n")
    with pytest.raises(MbenchError, match=r"no such suite file \(there: [^ ,]*/suite.yaml\)"):
        load_suite(tmp_path / "suit.yaml")


def test_the_command_line_narrows_and_redirects(tmp_path):
    path = write(tmp_path, GOOD)
    suite, _ = load_suite(
        path,
        set_values=["corpora.wiki.sequences=9", "router=preserved"],
        models=["demo=org/other"],
        retain=[0.75],
        methods=["reap", "frequency"],
        limit=7,
    )
    assert suite.corpora["wiki"].sequences == 9
    assert suite.router == "preserved"
    assert suite.models["demo"].hub == "org/other"
    assert suite.retain == (0.75,)
    assert list(suite.methods) == ["reap", "frequency"]
    assert suite.methods["reap"].corpora == ("wiki",)
    assert suite.tasks["cloze_wiki"].limit == 7
    few = load_suite(path, set_values=["tasks.cloze_wiki.limit=3"], limit=7)[0]
    assert few.tasks["cloze_wiki"].limit == 3


@pytest.mark.parametrize("given", ["0", "1001", "true", "'6'", "2.0", "{a: 1}"])
def test_seeds_are_a_list_or_their_number(tmp_path, given):
    path = write(tmp_path, GOOD)
    suite, _ = load_suite(path, set_values=["seeds=20", "methods.random.seeds=2"])
    assert suite.seeds == tuple(range(20))
    assert suite.methods["random"].seeds == (0, 1)
    with pytest.raises(
        MbenchError, match=r"seeds: give a list of seeds.* from 1 to 1000"
    ) as raised:
        load_suite(path, set_values=[f"seeds={given}"])
    assert str(raised.value).count("\n") == 0


def test_texts_and_tasks_are_taken_from_files(tmp_path):
    (tmp_path / "local.yaml").write_text("task: other\ndataset_path: json\n")
    path = write(tmp_path, GOOD)
    suite, _ = load_suite(
        path,
        set_values=["corpora.wiki.source={hub: a/b, field: page}", "tasks.cloze_wiki.limit=3"],
        texts=["wiki=own.jsonl"],
        tasks=[f"cloze_wiki={tmp_path}/local.yaml"],
    )
    source = suite.corpora["wiki"].source
    assert (source.hub, source.files, source.field) == (None, ("own.jsonl",), "page")
    task = suite.tasks["cloze_wiki"]
    assert (task.task, task.directory, task.limit) == ("other", str(tmp_path), 3)


def test_what_is_set_of_a_method_stays_when_another_is_chosen(tmp_path):
    """A method that is not chosen is left as a candidate, by whichever name it is changed."""
    path = write(tmp_path, GOOD)
    for section in ("methods", "candidates"):
        change = f"{section}.reap.corpora=[wikki]"
        suite, _ = load_suite(path, set_values=[change.replace("kk", "k")], methods=["random"])
        assert suite.candidates["reap"].corpora == ("wiki",)
        with pytest.raises(MbenchError, match=re.escape(f"--set {change}: unknown corpus")):
            load_suite(path, set_values=[change], methods=["random"])
    new = load_suite(path, set_values=["methods.max.corpora=[wiki]"], methods=["max"])[0]
    assert new.methods["max"].corpora == ("wiki",)


def test_what_shares_an_alias_is_changed_alone(tmp_path):
    path = write(
        tmp_path, GOOD.replace("cloze_wiki: {metric: acc}", "cloze_wiki: &t {}\n  two: *t")
    )
    suite, _ = load_suite(path, set_values=["tasks.two.limit=3"])
    assert (suite.tasks["cloze_wiki"].limit, suite.tasks["two"].limit) == (None, 3)


def test_merged_keys_and_anchors_count_as_written_out(tmp_path):
    text = GOOD.replace(
        "reap: {corpora: [wiki]}", "reap: &r {corpora: [wiki]}\n  two: {<<: *r, use: reap}"
    )
    suite, source = load_suite(write(tmp_path, text.replace("metric: acc", "metric: &m acc")))
    assert suite.methods["two"].corpora == ("wiki",)
    assert source.where(("methods", "two", "use")).endswith(":11:17")


def test_a_model_left_out_takes_what_methods_say_of_it_along(tmp_path):
    change = "methods.reap.models={demo: {scorer: {variant: sum}}, second: {}}"
    both = [change, "models.second={hub: a/b}"]
    suite, _ = load_suite(write(tmp_path, GOOD), set_values=both, models=["demo"])
    assert list(suite.models) == list(suite.methods["reap"].models) == ["demo"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": ["dmo=x"]}, "unknown model 'dmo'; did you mean 'demo'?"),
        ({"models": ["demo="]}, "--model takes NAME, NAME=PATH, NAME=ID or NAME=ID@REVISION"),
        ({"set_values": ["methods=[random, mean]"]}, "methods: input should be a mapping"),
        ({"set_values": ["tasks=[x]"], "limit": 3}, "tasks: input should be a mapping"),
        ({"set_values": ["models=[demo]"], "models": ["demo=x"]}, "unknown model 'demo'"),
        ({"set_values": ["corpora.wiki.length=long"]}, "--set corpora.wiki.length=long: "),
        ({"set_values": ["router"]}, "--set takes KEY.KEY=VALUE"),
        ({"set_values": ["name.x=1"]}, "cannot set 'x' there"),
        ({"retain": [2.0]}, "--retain: retain.0: input should be less than 1"),
        ({"texts": ["wik=x.txt"]}, "--text wik=x.txt: unknown text 'wik'; did you mean 'wiki'?"),
        ({"texts": ["wiki"]}, "--text takes NAME=FILE, got 'wiki'"),
        ({"tasks": ["cloze=x.yaml"]}, "--task cloze=x.yaml: unknown task 'cloze'"),
        ({"tasks": ["cloze_wiki=no.yaml"]}, "--task: no.yaml: No such file or directory"),
        ({"set_values": ["name=&a [*a]"]}, "--set name=&a [*a]: the value:1:5: *a contains itself"),
        ({"set_values": ["retain.²=0.5"]}, "cannot set '²' there"),
        ({"set_values": ["retain.7=0.5"]}, "cannot set 7 there"),
        ({"set_values": ["a." * 3000 + "a=1"]}, "nothing in a suite has more than 20 keys"),
        (
            {"set_values": ["methods.raep.corpora=[wiki]"]},
            "unknown method 'raep'; did you mean 'reap'",
        ),
        (
            {"set_values": ["corpora.wikki.length=5"]},
            "to add one, give it as a whole: --set 'corpora.",
        ),
        ({"set_values": ["candidates.x.seeds=[1]"]}, "unknown candidate 'x' (valid: none)"),
        ({"limit": 0}, "--limit takes a number of items from 1"),
    ],
)
def test_a_wrong_option_is_named(tmp_path, options, message):
    with pytest.raises(MbenchError) as caught:
        load_suite(write(tmp_path, GOOD), **options)
    assert message in str(caught.value)


def test_kept_experts_is_the_floor_of_the_decimal_as_written():
    # 0.29 * 100 is 28.999999999999996 in floating point.
    assert kept_experts(0.29, 100) == 29
    assert [kept_experts(ratio, 60) for ratio in (0.25, 0.5, 0.75)] == [15, 30, 45]
    assert kept_experts(0.1, 8) == 0
