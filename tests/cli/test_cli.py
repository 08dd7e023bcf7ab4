"""The command line as a user meets it: exit status, what is printed where, one line a mistake."""

from __future__ import annotations

import html
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml

import mbench
from helpers.command import call, call_apart
from helpers.places import ROOT
from helpers.tiny_suite import SUITE, plan_of
from mbench.cli import VERBS
from mbench.cli.plan_display import show_detectable, show_plan
from mbench.core.errors import AdmissionError
from mbench.plan.cost import estimate
from mbench.plan.detectable import detectable
from mbench.storage.store import Store

ESCAPE = "\x1b"


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """(A folder in which the tiny suite has been run once, what was printed)."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(SUITE)
    run = call_apart("run", "tiny.yaml", cwd=folder, store=folder / "s")
    shutil.copytree(folder / "reports", folder / "first reports")
    shutil.copytree(folder / "s", folder / "first store")
    return folder, run


@pytest.fixture(scope="module")
def folder(first_run):
    return first_run[0]


@pytest.fixture(scope="module")
def call_there(folder):
    """Runs a command in that folder, with what has been stored there."""
    return partial(call, cwd=folder, store=folder / "s")


def test_a_run_prints_the_report_on_stdout_and_the_rest_on_stderr(first_run):
    folder, run = first_run
    assert run.returncode == 0, run.stderr
    assert run.stdout == "reports/tiny/index.html\n"
    assert ESCAPE not in run.stderr
    assert "Warning" not in run.stderr
    assert "is better\n" in run.stderr  # nothing is bold in a pipe
    assert "5 methods at 50, 75 % pruned, 2 tasks" in run.stderr
    assert re.search(r"^demo +12 +≤ 13 +≤ 26 +0 +2 ", run.stderr, re.M)
    assert re.search(r"demo 50 % pruned, reap +ppl-wiki [\d.]+", run.stderr)
    names = {path.name for path in (folder / "reports" / "tiny").iterdir()}
    assert names == {
        *("index.html", "results.csv", "results.json", "items.parquet"),
        *("tables.tex", "tables.md", "verdict.json", "suite.lock"),
        *("scores.safetensors", "masks_and_scores.js", "items"),
    }
    assert (folder / "reports" / "index.html").is_file()
    assert "50\N{NO-BREAK SPACE}% pruned" in run.stderr
    table = mbench.load_results(folder / "reports" / "tiny")
    assert set(table["method"]) >= {"none", "random", "expert-sparsity", "tb-coverage"}


def test_json_is_json_lines_and_nothing_else(call_there):
    run = call_there("run", "tiny.yaml", "--json")
    assert run.returncode == 0
    events = [json.loads(line) for line in run.stdout.splitlines()]
    assert events[0]["event"] == "plan"
    assert events[-1] == {
        "event": "done",
        "report": "reports/tiny/index.html",
        "problems": [],
        "early": 0,
        "interrupted": False,
    }
    assert run.stderr == ""


def test_plan_leads_with_the_cost_and_keeps_the_settings_behind_an_option(folder, call_there):
    done = call_there("plan", "tiny.yaml")
    assert "nothing to do: everything is in the store" in done.stdout
    other = folder / "other"
    new = call("plan", "tiny.yaml", cwd=folder, store=other)
    cells, masks, left, stored, profiles = 12, 13, 26, 0, 2
    of_run = call_there("plan", "tiny.yaml", "--json")
    tokens = masks * json.loads(of_run.stdout)["models"][0]["mask_tokens"] + 384
    figures = rf"^demo +{cells} +≤ {masks} +≤ {left} +{stored} +{profiles} +{tokens:,} +- "
    assert re.search(figures, new.stdout, re.M)
    assert "time -: no speed was measured here yet" in new.stdout
    assert "at the speed last measured" not in new.stdout
    setting = "selector round-robin (protected 10, overflow clamp)"
    assert setting not in new.stdout
    assert setting in call_there("plan", "tiny.yaml", "--settings").stdout
    as_json = json.loads(of_run.stdout)
    assert as_json["models"][0]["evaluations_cached"] == as_json["models"][0]["evaluations"]
    assert any(setting in entry["text"] for entry in as_json["settings"])
    assert {row["name"] for row in as_json["detectable"]} >= {"cloze_bible", "ppl-wiki"}


def test_plan_refuses_what_a_run_does_where_nothing_need_be_fetched(folder, call_there):
    words = ("tiny.yaml", "--set", "tasks.cloze_bible.metric=accuracy")
    run, planned = call_there("run", *words), call_there("plan", *words)
    assert (planned.returncode, planned.stdout) == (2, "")
    assert planned.stderr == run.stderr
    with pytest.raises(AdmissionError, match="accuracy"):
        mbench.plan(folder / "tiny.yaml", changes={"tasks.cloze_bible.metric": "accuracy"})


def test_what_nobody_has_counted_is_called_so(tmp_path, capsys):
    store = Store(tmp_path / "store")
    plan = plan_of(tmp_path, store)
    show_plan(estimate(plan, store), plan, err=False)
    show_detectable(detectable(plan, store))
    told = capsys.readouterr().out
    assert re.search(r"^demo +12 .* not counted +- ", told, re.M)
    assert "nobody has counted cloze_bible here yet: `mbench check`" in told
    assert "finds: not known before" in told
    assert "speed" not in told
    assert "Disagree" not in told


def test_plan_says_where_random_masks_are_few_and_what_more_cost(call_there):
    few = call_there("plan", "tiny.yaml").stdout
    per_mask = json.loads(call_there("plan", "tiny.yaml", "--json").stdout)["models"][0]
    more = 17 * 2 * per_mask["mask_tokens"]
    assert (
        "a method that beats them all has, by its rank, p = 1/3 = 0.33; for 0.05 it takes 19" in few
    )
    assert f"--set seeds=19 adds 17 at each budget, {more:,} tokens" in few
    assert more < 1_000_000
    enough = call_there("plan", "tiny.yaml", "--set", "seeds=19")
    assert "by its rank" not in enough.stdout
    own = call_there("plan", "tiny.yaml", "--set", "methods.random.seeds=3")
    assert "--set methods.random.seeds=19 adds 16 at each budget" in own.stdout


def test_a_changed_suite_says_so_on_its_page(folder, call_there):
    said = "Not the suite as it is written, but changed by"
    assert said not in (folder / "reports" / "tiny" / "index.html").read_text()
    words = ["run", "tiny.yaml", "--retain", "0.5", "--set", "title='a b'", "--output", "narrow"]
    assert call_there(*words).returncode == 0
    text = html.unescape((folder / "narrow" / "tiny" / "index.html").read_text())
    assert f"""{said} <code>--retain 0.5 --set 'title='"'"'a b'"'"''</code>""" in text


def test_report_renders_the_same_page_again(folder, call_there):
    page = folder / "reports" / "tiny" / "index.html"
    before = page.read_bytes()
    page.unlink()
    assert call_there("report", "reports/tiny").returncode == 0
    assert page.read_bytes() == before


def test_export_writes_the_model_that_was_chosen(folder, call_there):
    words = ("export", "reports/tiny", "--method", "reap", "--retain", "0.5", "--out", "small")
    run = call_there(*words)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "small\n"
    assert "experts per layer: 12 of 24" in run.stderr
    table = mbench.load_results(folder / "reports" / "tiny")
    (mask,) = set(table[(table["method"] == "reap") & (table["retain"] == 0.5)]["mask"])
    assert json.loads((folder / "small" / "expert_mask.json").read_text())["content_hash"] == mask
    assert json.loads((folder / "small" / "config.json").read_text())["num_experts"] == 12


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rnu", "tiny.yaml"], "unknown command 'rnu'; did you mean 'run'? (valid: check, "),
        (
            ["leaderboard"],
            f"(valid: {', '.join(sorted(VERBS))})",
        ),
        (["run", "none.yaml"], "none.yaml: no such suite file (there: tiny.yaml)"),
        (["plan", "quikstart"], "unknown suite 'quikstart'; did you mean 'quickstart'?"),
        (["run", "tiny.yaml", "--set", "retian=[0.5]"], "unknown key 'retian'; did you mean"),
        (["run", "tiny.yaml", "--method", "rendom"], "unknown method 'rendom'; did you mean"),
        (["run", "tiny.yaml", "--retain", "0.001"], "keeps none"),
        (["run", "tiny.yaml", "--model", "demo=./nowhere"], "nowhere"),
        (["run", "tiny.yaml", "--text", "wiki=gone.txt"], "error: --text wiki=gone.txt: "),
        (["run", "tiny.yaml", "--text", "ppl-wiki=gone.txt"], "error: --text ppl-wiki=gone.txt: "),
        (["run", "tiny.yaml", "--model", "demo=org/model"], "mbench run quickstart"),
        (["run", "tiny.yaml", "--output", "tiny.yaml"], "cannot write"),
        (["run", "tiny.yaml", "--store", "tiny.yaml"], "cannot use the store"),
        (["report", "nothing-here"], "no results in nothing-here"),
        (
            ["export", "reports/tiny", "--out", "x"],
            "with --retain (valid: 0.25, 0.5)",
        ),
        (["check", "tiny.yaml", "--set", "methods.reap.corpora=[bibel]"], "'bibel'"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(call_there, words, message):
    run = call_there(*words)
    assert run.returncode == 2, run.stderr
    assert run.stdout == ""
    (line,) = run.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_refusal_names_the_option_that_may_be_its_cause(folder, call_there):
    (folder / "short.txt").write_text("three words only")
    run = call_there("check", "tiny.yaml", "--text", "wiki=short.txt", "--retain", "0.5")
    assert run.returncode == 2
    assert re.fullmatch(
        r"error: tiny.yaml:\d+:\d+, changed by --text wiki=short.txt: corpora.wiki on demo: .*\n",
        run.stderr,
    )


BROKEN_CORPUS = """
import mbench

def documents(split):
    return [1 / 0]

@mbench.hookimpl
def mbench_corpora():
    return {"broken": documents}
"""


def test_debug_shows_the_traceback_of_an_error_and_of_its_cause(tmp_path):
    (tmp_path / "tiny.yaml").write_text(SUITE)
    (tmp_path / "broken.py").write_text(BROKEN_CORPUS)
    words = [
        *("check", "tiny.yaml", "--plugin", "broken.py"),
        *("--set", "corpora.wiki.source={plugin: broken}"),
    ]
    lines = (words, ["--debug", *words], [*words, "--debug"])
    plain, *debugged = [call(*line, cwd=tmp_path, store=tmp_path / "s") for line in lines]
    (line,) = plain.stderr.splitlines()
    assert line.startswith("error: ")
    assert "ZeroDivisionError: division by zero" in line
    for run in debugged:
        assert (run.returncode, run.stdout) == (2, "")
        assert run.stderr.splitlines()[-1] == line
        assert 'broken.py", line 5, in documents' in run.stderr
        assert "direct cause" in run.stderr


def test_the_suites_that_come_with_mbench_are_listed_with_what_they_need(tmp_path):
    listed = call("suites", store=tmp_path)
    assert (listed.returncode, listed.stderr) == (0, "")
    blocks = [block.splitlines() for block in re.split(r"^(?=\w)", listed.stdout, flags=re.M)[1:]]
    rows = json.loads(call("suites", "--json", store=tmp_path).stdout)["suites"]
    assert [block[0] for block in blocks] == [f"{row['name']}: {row['title']}" for row in rows]
    assert {row["name"]: row["models"] for row in rows}["protection_budget"] == [
        "Qwen/Qwen1.5-MoE-A2.7B (14.3 billion parameters)"
    ]
    for block, row in zip(blocks, rows, strict=True):
        assert block[-1] == f"  file: {row['file']}"
        suite = yaml.safe_load(Path(row["file"]).read_text())
        crossed = suite.get("cross", {"methods": [], "corpora": []})
        pairs = itertools.product(crossed["methods"], crossed["corpora"])
        assert row["methods"] == [*suite["methods"], *("@".join(pair) for pair in pairs)]
        assert (row["retain"], row["description"]) == (suite["retain"], suite["description"])


def test_a_note_says_which_of_two_suites_is_meant(tmp_path):
    (tmp_path / "quickstart.yaml").write_text(SUITE)
    shipped = call("check", "quickstart", cwd=tmp_path, store=tmp_path)
    assert shipped.returncode == 0
    (note,) = shipped.stderr.splitlines()
    assert note.startswith("note: quickstart is the suite that comes with mbench")
    assert shipped.stdout.endswith("(quickstart)\n")
    copied = call("check", "quickstart.yaml", cwd=tmp_path, store=tmp_path)
    assert (copied.stderr, copied.stdout[-7:]) == ("", "(tiny)\n")


def test_failures_are_named_and_the_status_says_so(folder, call_there):
    run = call_there("run", "tiny.yaml", "--set", "tasks.cloze_bible.metric=f1")
    assert run.returncode == 2
    assert "unknown metric 'f1' (valid: acc, acc_norm)" in run.stderr
    block, *_ = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    failing = re.sub(r"return profile\.sums.*", "raise ValueError('of no use')", block)
    (folder / "failing.py").write_text(failing.replace("frequency", "failing"))
    given = ("--plugin", "failing.py", "--method", "failing", "--set", "calibration=[wiki]")
    run = call_there("run", "tiny.yaml", *given)
    assert run.returncode == 3
    assert "of no use" in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == "reports/tiny/index.html\n"


HEAVY = (
    *("torch", "transformers", "tokenizers", "datasets", "lm_eval", "safetensors"),
    *("scipy", "pandas", "rich", "fsspec", "httpx2"),
)


@pytest.mark.parametrize(
    ("words", "heavy", "shown"),
    [
        (["--help"], (*HEAVY, "numpy", "pydantic"), "Run a suite and write its leaderboard."),
        (["check", "tiny.yaml"], HEAVY, "tiny.yaml: ok, 12 cells, 2 tasks (tiny)"),
    ],
)
def test_short_commands_load_nothing_heavy(folder, words, heavy, shown):
    code = f"import sys, mbench.cli; mbench.cli.group({words}, standalone_mode=False);"
    code += f"sys.exit(' '.join(set({heavy}) & set(sys.modules)))"
    environment = {**os.environ, "MBENCH_STORE": str(folder / "s")}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert run.stderr == "\n"
    assert shown in run.stdout


def test_the_readme_plugin_works_as_printed(folder, call_there):
    block, *_ = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    (folder / "frequency.py").write_text(block)
    listed = call_there("plugins", "--plugin", "frequency.py")
    assert listed.returncode == 0
    assert re.search(r"scorer +frequency +frequency.py +How often the router", listed.stdout)
    run = call_there(
        *("run", "tiny.yaml", "--plugin", "frequency.py", "--method", "frequency"),
        *("--set", "calibration=[wiki]", "--quiet"),
    )
    assert run.returncode == 0, run.stderr
    assert "frequency" in set(mbench.load_results(folder / "reports" / "tiny")["method"])


def test_several_processes_give_the_same_figures(folder, tmp_path):
    (tmp_path / "tiny.yaml").write_text(SUITE)
    run = call("run", "tiny.yaml", "--set", "processes=3", cwd=tmp_path, store=tmp_path / "s")
    assert run.returncode == 0, run.stderr
    one = mbench.load_results(folder / "first reports" / "tiny")
    three = mbench.load_results(tmp_path / "reports" / "tiny")
    figures = ["value", "stderr"]
    assert one.drop(columns=figures).equals(three.drop(columns=figures))
    for name in figures:
        assert one[name].to_numpy() == pytest.approx(three[name].to_numpy(), rel=1e-4, nan_ok=True)
