"""`mbench schema`: the JSON Schema of suite files."""

from __future__ import annotations

import json

import click


@click.command("schema")
def command() -> None:
    """Print the JSON Schema of suite files, by which editors complete and check them.

    For the YAML extension of VS Code: `mbench schema > suite-schema.json`, and in a suite's first
    line `# yaml-language-server: $schema=suite-schema.json`.
    """
    from mbench.core.suite_schema import suite_schema

    click.echo(json.dumps(suite_schema(), indent=1, ensure_ascii=False))
