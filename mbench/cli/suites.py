"""`mbench suites`: list the suites that come with mbench, what they compare and need."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mbench.cli.output import print_json

if TYPE_CHECKING:
    from mbench.core.suite_inputs import ModelSpec

WIDTH = 96


@click.command("suites")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool) -> None:
    """List the suites that come with mbench: `run`, `plan` and `check` know them by name.

    To change one, copy its file and give the copy's path.
    """
    from mbench.plan.shipped import shipped_suites

    rows = [_row(name, file) for name, file in shipped_suites().items()]
    if as_json:
        print_json({"suites": rows})
        return
    for row in rows:
        click.echo(f"{row['name']}: {row['title']}")
        budgets = ", ".join(f"{100 * ratio:g}" for ratio in row["retain"])
        paragraphs = [
            row["description"],
            f"compares: {', '.join(row['methods'])}; at {budgets} % of the experts",
            f"needs: {'; '.join(row['models'])}",
        ]
        for text in paragraphs:
            lines = textwrap.wrap(text, WIDTH, break_on_hyphens=False)
            click.echo("  " + "\n    ".join(lines))
        click.echo(f"  file: {row['file']}")


def _row(name: str, file: Path) -> dict[str, Any]:
    from mbench.plan.suite_file import load_suite

    suite, _ = load_suite(file)
    return {
        "name": name,
        "title": suite.title,
        "description": suite.description,
        "methods": list(suite.methods),
        "retain": list(suite.retain),
        "models": [_model(spec) for spec in suite.models.values()],
        "file": str(file),
    }


def _model(spec: ModelSpec) -> str:
    """Where a model comes from, and its size if the suite states it."""
    if spec.plugin is not None:
        return f"{spec.plugin} (ships with a plugin)"
    size = spec.expect.parameters if spec.expect is not None else None
    return f"{spec.hub or spec.path}" + (f" ({size / 1e9:.1f} billion parameters)" if size else "")
