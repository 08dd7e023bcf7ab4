"""Panels of plugins: what they return is on the page, and what they break is named there."""

from __future__ import annotations

import pytest

import mbench
from helpers.pages import html_of
from helpers.small_runs import grid, run
from mbench.plan.plugin_loading import load_registry
from mbench.report.page.panels import collect
from mbench.report.publish import publish

HOSTILE = "<script>alert(1)</script>"

PANEL = '''
import mbench

@mbench.hookimpl
def mbench_panels(results):
    """How many experts of each layer some method drops at every budget."""
    table = mbench.long_form(results)
    kept = table.groupby("method", as_index=False)["experts_kept"].min()
    return [mbench.Panel("Fewest experts <kept>", kept)]
'''


def panels(tmp_path, *sources):
    files = []
    for number, source in enumerate(sources):
        files.append(tmp_path / f"panel{number}.py")
        files[-1].write_text(source)
    registry = load_registry(files)
    assert registry.failures == []
    return registry.panels


def returning(expression):
    head = "import mbench\nfrom markupsafe import Markup\nimport pandas as pd\n"
    return f"{head}@mbench.hookimpl\ndef mbench_panels(results):\n    return {expression}\n"


def test_a_dataframe_is_a_table(tmp_path):
    (part,) = collect(panels(tmp_path, PANEL), run(grid())).parts
    _, table = part.blocks
    assert [column.text for column in table.columns] == ["method", "experts_kept"]
    rows = {row.head.text: row.cells[0] for row in table.rows}
    assert rows["alpha"].text == "2"
    assert rows["alpha"].sort == 2.0
    page = html_of(run(grid()), panels=[part])
    assert "<h2>Fewest experts &lt;kept&gt;</h2>" in page
    assert page.count('id="panel-1-table"') == 1


def test_text_is_escaped_and_markup_is_not(tmp_path):
    text = returning(f'[mbench.Panel("{HOSTILE}", "{HOSTILE}")]')
    markup = returning(f'[mbench.Panel("t", Markup("<b>{{}}</b>").format("{HOSTILE}"))]')
    table = returning(f'[mbench.Panel("t", pd.DataFrame({{"{HOSTILE}": ["{HOSTILE}"]}}))]')
    parts = collect(panels(tmp_path, text, markup, table), run(grid())).parts
    page = html_of(run(grid()), panels=parts)
    assert HOSTILE not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5
    assert "<b>&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("exit(3)", "SystemExit: 3"),
        ("['text']", "TypeError: mbench_panels returned 'text', which is not an mbench.Panel"),
        ("[mbench.Panel('t', 3)]", "panel 't' holds int, not text"),
        ("[mbench.Panel('t', pd.DataFrame())]", "panel 't' holds an empty DataFrame"),
        ("3", "TypeError"),
    ],
)
def test_a_broken_plugin_is_named_and_loses_nothing_else(tmp_path, expression, reason):
    hooks = panels(tmp_path, returning(expression), PANEL)
    shown = collect(hooks, run(grid()))
    broken, whole = shown.parts
    assert reason in broken.failure
    assert not whole.failure
    (failure,) = shown.failures
    assert "panel0.py" in failure
    published = publish(run(grid()), tmp_path / "reports" / "run", hooks)
    page = published.page.read_text()
    assert "Panel of" in page
    assert "Fewest experts" in page
    assert "Leaderboard:" in page
    (warning,) = published.warnings
    assert "panel0.py: its panel failed" in warning


def test_panels_change_no_byte_where_there_are_none():
    assert mbench.Panel("t", "x").title == "t"
    assert 'id="panel-' not in html_of(run(grid()))
