"""What documents say of the project is so: links, paths, commands, options, and the tree."""

from __future__ import annotations

import pkgutil
import re

import click
import pytest

from helpers.places import ROOT
from helpers.source_tree import tree
from helpers.suite_reference import reference
from mbench.cli import VERBS, group
from mbench.report.item_files import FOLDER
from mbench.report.publish import RENDERED
from mbench.storage.report_folder import LOCK, PAGE
from mbench.storage.results_folder import RESULT_FILES
from mbench.storage.results_json import FORMAT

DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "reports/README.md"]
DOCUMENTS += [str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").glob("*.md"))]
CODE = re.compile(r"^```\w*\n(.*?)^```|`([^`\n]+)`", re.MULTILINE | re.DOTALL)


@pytest.fixture(params=DOCUMENTS)
def document(request):
    return ROOT / request.param


def code(document):
    """Every block and every span of code."""
    text = document.read_text(encoding="utf-8")
    return [block or span for block, span in CODE.findall(text)]


def options(verb, rest=""):
    """Of a verb, or of the one below it that comes next."""
    command = group.get_command(click.Context(group), verb)
    if isinstance(command, click.Group):
        command = command.commands.get(next(iter(rest.split()), ""), command)
    return {name for option in command.params for name in option.opts} | {"--help", "-h"}


def test_links_lead_to_files(document):
    links = re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (document.parent / link).exists()] == []


def test_paths_in_code_exist(document):
    tops = "mbench|plugins|suites|tests|benchmarks|docs|reports/published|.ci"
    path = re.compile(rf"(?<![\w./])(?:{tops})/(?:[\w.-]+/)*[\w.-]*")
    named = [name for text in code(document) for name in path.findall(text)]
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_names_of_the_library_exist(document):
    dotted = [name for text in code(document) for name in re.findall(r"\bmbench(?:\.\w+)+", text)]
    for name in dotted:
        pkgutil.resolve_name(name)


def test_commands_and_their_options_exist(document):
    lines = [line for text in code(document) for line in text.splitlines()]
    commands = [words for line in lines for words in re.findall(r"\bmbench ([a-z-]+)(.*)", line)]
    for verb, rest in commands:
        assert verb in VERBS, f"mbench {verb}"
        asked = set(re.findall(r"(?<=\s)--?[a-z][\w-]*", rest.partition("&&")[0]))
        assert asked <= options(verb, rest), f"mbench {verb} {rest}"


def test_every_option_that_narrows_a_suite_is_told():
    """They stand in a table without a verb."""
    running = ROOT / "docs" / "running.md"
    named = {word for text in code(running) for word in re.findall(r"^--[\w-]+", text)}
    assert named <= {option for verb in VERBS for option in options(verb)}
    assert {"--model", "--text", "--task", "--retain", "--method", "--limit", "--set"} <= named


def test_the_readme_names_every_verb():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [verb for verb in VERBS if f"mbench {verb}" not in readme] == []


def test_every_file_of_a_report_is_listed_and_no_other():
    results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    table = results[: results.index("Columns of `results.csv`")]
    cells = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)
    listed = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    beside = {*RENDERED, *RESULT_FILES, LOCK, f"{FOLDER}/"} - {PAGE}
    assert sorted(listed) == sorted(beside)
    assert re.findall(r"`results.json`, format (\d+)", results) == [str(FORMAT)]


def test_the_tree_says_what_the_packages_say():
    block = re.search(r"```text\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert block
    assert block[1] == tree(), "CONTRIBUTING.md: python -m helpers.source_tree writes its tree"


def test_the_reference_of_suites_is_up_to_date():
    written = (ROOT / "docs" / "suites.md").read_text(encoding="utf-8")
    assert written == reference(), "docs/suites.md: python -m helpers.suite_reference writes it"
