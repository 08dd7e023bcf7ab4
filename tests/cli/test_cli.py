"""The command line as a user meets it: exit status, what is printed where, one line a mistake."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import mbench
from helpers.places import ROOT
from helpers.tiny_suite import SUITE

ESCAPE = "\x1b"


def call(*words: str, cwd: Path, store: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MBENCH_STORE": str(store or cwd / "s")}
    return subprocess.run(
        [sys.executable, "-m", "mbench", *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which the tiny suite has been run once, with what was printed."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(SUITE)
    return folder, call("run", "tiny.yaml", cwd=folder)


def test_a_run_prints_the_report_on_stdout_and_the_rest_on_stderr(finished):
    folder, run = finished
    assert run.returncode == 0, run.stderr
    assert run.stdout == "reports/tiny/index.html\n"
    assert ESCAPE not in run.stderr
    assert "Warning" not in run.stderr
    assert "demo: 12 cells at 25% 50%" in run.stderr
    assert re.search(r"demo 50% reap +ppl-wiki [\d.]+", run.stderr)
    names = {path.name for path in (folder / "reports" / "tiny").iterdir()}
    assert names == {
        *("index.html", "results.csv", "results.json", "items.parquet"),
        *("tables.tex", "tables.md", "verdict.json"),
    }
    assert (folder / "reports" / "index.html").is_file()
    assert "50\N{NO-BREAK SPACE}% kept: " in run.stderr
    table = mbench.load_results(folder / "reports" / "tiny")
    assert set(table["method"]) >= {"none", "random", "expert-sparsity", "tb-coverage"}


def test_json_is_json_lines_and_nothing_else(finished):
    folder, _ = finished
    run = call("run", "tiny.yaml", "--json", cwd=folder)
    assert run.returncode == 0
    events = [json.loads(line) for line in run.stdout.splitlines()]
    assert events[0]["event"] == "plan"
    assert events[-1] == {
        "event": "done",
        "report": "reports/tiny/index.html",
        "problems": [],
        "interrupted": False,
    }
    assert run.stderr == ""


def test_plan_tells_settings_cost_and_what_is_cached(finished):
    folder, _ = finished
    done = call("plan", "tiny.yaml", cwd=folder)
    assert "to do: nothing, everything is in the store" in done.stdout
    new = call("plan", "tiny.yaml", cwd=folder, store=folder / "other")
    assert "at most 13 distinct masks, 0 of at most 26 evaluations in the store" in new.stdout
    assert "2 profiles of 384 tokens" in new.stdout
    assert "selector round-robin (protected 10, overflow clamp)" in new.stdout
    as_json = json.loads(call("plan", "tiny.yaml", "--json", cwd=folder).stdout)
    assert as_json["models"][0]["evaluations_cached"] == as_json["models"][0]["evaluations"]


def test_a_changed_suite_says_so_on_its_page(finished):
    folder, _ = finished
    said = "Not the suite as it is written, but changed by"
    assert said not in (folder / "reports" / "tiny" / "index.html").read_text()
    words = ["run", "tiny.yaml", "--retain", "0.5", "--set", "title='a b'", "--output", "narrow"]
    assert call(*words, cwd=folder).returncode == 0
    text = html.unescape((folder / "narrow" / "tiny" / "index.html").read_text())
    assert f"""{said} <code>--retain 0.5 --set 'title='"'"'a b'"'"''</code>""" in text


def test_report_renders_the_same_page_again(finished):
    folder, _ = finished
    page = folder / "reports" / "tiny" / "index.html"
    before = page.read_bytes()
    page.unlink()
    assert call("report", "reports/tiny", cwd=folder).returncode == 0
    assert page.read_bytes() == before


def test_export_writes_the_model_that_was_chosen(finished):
    folder, _ = finished
    words = ("export", "reports/tiny", "--method", "reap", "--retain", "0.5", "--out", "small")
    run = call(*words, cwd=folder)
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
        (["rnu", "tiny.yaml"], "no command 'rnu' (did you mean 'run'?)"),
        (["leaderboard"], "(valid: run, plan, check, report, compare, export, suites, plugins)"),
        (["run", "none.yaml"], "none.yaml: no such suite file (there: tiny.yaml)"),
        (["plan", "quikstart"], "unknown suite 'quikstart'; did you mean 'quickstart'?"),
        (["run", "tiny.yaml", "--set", "retian=[0.5]"], "unknown key 'retian'; did you mean"),
        (["run", "tiny.yaml", "--method", "rendom"], "unknown method 'rendom'; did you mean"),
        (["run", "tiny.yaml", "--retain", "0.001"], "keeps none"),
        (["run", "tiny.yaml", "--model", "demo=./nowhere"], "nowhere"),
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
def test_a_mistake_is_one_line_and_status_2(finished, words, message):
    folder, _ = finished
    run = call(*words, cwd=folder)
    assert run.returncode == 2, run.stderr
    assert run.stdout == ""
    (line,) = run.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_the_suites_that_come_with_mbench_are_listed_with_what_they_need(tmp_path):
    listed = call("suites", cwd=tmp_path)
    assert (listed.returncode, listed.stderr) == (0, "")
    blocks = [block.splitlines() for block in re.split(r"^(?=\w)", listed.stdout, flags=re.M)[1:]]
    rows = json.loads(call("suites", "--json", cwd=tmp_path).stdout)["suites"]
    assert [block[0] for block in blocks] == [f"{row['name']}: {row['title']}" for row in rows]
    assert {row["name"]: row["models"] for row in rows}["protection_budget"] == [
        "Qwen/Qwen1.5-MoE-A2.7B (14.3 billion parameters)"
    ]
    for block, row in zip(blocks, rows, strict=True):
        assert block[-1] == f"  file: {row['file']}"
        suite = yaml.safe_load(Path(row["file"]).read_text())
        assert row["methods"] == list(suite["methods"])
        assert (row["retain"], row["description"]) == (suite["retain"], suite["description"])


def test_a_note_says_which_of_two_suites_is_meant(tmp_path):
    (tmp_path / "quickstart.yaml").write_text(SUITE)
    shipped = call("check", "quickstart", cwd=tmp_path)
    assert shipped.returncode == 0
    (note,) = shipped.stderr.splitlines()
    assert note.startswith("note: quickstart is the suite that comes with mbench")
    assert shipped.stdout.endswith("(quickstart)\n")
    copied = call("check", "quickstart.yaml", cwd=tmp_path)
    assert (copied.stderr, copied.stdout[-7:]) == ("", "(tiny)\n")


def test_failures_are_named_and_the_status_says_so(finished):
    folder, _ = finished
    run = call("run", "tiny.yaml", "--set", "tasks.cloze_bible.metric=f1", cwd=folder)
    assert run.returncode == 3
    assert "unknown metric 'f1' (valid: acc, acc_norm)" in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == "reports/tiny/index.html\n"


def test_help_and_version_load_nothing_heavy():
    code = "import sys, mbench.cli; mbench.cli.group(['--help'], standalone_mode=False);"
    code += "heavy = {'torch', 'numpy', 'pydantic', 'pandas', 'rich'} & set(sys.modules);"
    code += "sys.exit(f'imported {heavy}' if heavy else 0)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "Run a suite and write its leaderboard." in run.stdout


def test_the_readme_plugin_works_as_printed(finished):
    folder, _ = finished
    block, *_ = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    (folder / "frequency.py").write_text(block)
    listed = call("plugins", "--plugin", "frequency.py", cwd=folder)
    assert listed.returncode == 0
    assert re.search(r"scorer +frequency +frequency.py +How often the router", listed.stdout)
    run = call(
        *("run", "tiny.yaml", "--plugin", "frequency.py", "--method", "frequency"),
        *("--set", "calibration=[wiki]", "--quiet"),
        cwd=folder,
    )
    assert run.returncode == 0, run.stderr
    assert "frequency" in set(mbench.load_results(folder / "reports" / "tiny")["method"])


def test_several_processes_give_the_same_figures(finished, tmp_path):
    folder, _ = finished
    (tmp_path / "tiny.yaml").write_text(SUITE)
    run = call("run", "tiny.yaml", "--set", "processes=3", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    # What is compared is each run's own page-side table, from a store of its own.
    again = call("run", "tiny.yaml", "--output", "fresh", cwd=folder)
    assert again.returncode == 0
    one = mbench.load_results(folder / "fresh" / "tiny").drop(columns=["value", "stderr"])
    three = mbench.load_results(tmp_path / "reports" / "tiny").drop(columns=["value", "stderr"])
    assert one.equals(three)
    values = [
        mbench.load_results(path)["value"].to_numpy()
        for path in (folder / "fresh" / "tiny", tmp_path / "reports" / "tiny")
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_a_helper_evaluates_what_is_pending_and_writes_no_report(finished, tmp_path):
    folder, _ = finished
    store = tmp_path / "store"
    first = call("run", "tiny.yaml", "--output", str(tmp_path / "a"), cwd=folder, store=store)
    assert first.returncode == 0
    evaluations = sorted((store / "evaluations").iterdir())
    for path in evaluations[:5]:
        path.unlink()
    helper = call("run", "tiny.yaml", "--helper", "1", cwd=folder, store=store)
    assert (helper.returncode, helper.stdout, helper.stderr) == (0, "", "")
    assert sorted((store / "evaluations").iterdir()) == evaluations
