"""`mbench plugins`: list what plugins offer to suites, and where each name comes from."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mbench.cli.options import plugin_option, warn_of_failures
from mbench.cli.output import print_json


@click.command("plugins")
@plugin_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(plugin_files: tuple[Path, ...], as_json: bool) -> None:
    """List methods, components, corpora and models that suites may name.

    Exit status 3 if a plugin, or one name of it, could not be used.
    """
    from mbench.cli.display import json_only
    from mbench.plan.plugin_loading import load_registry

    json_stream = click.get_current_context().with_resource(json_only()) if as_json else None
    registry = load_registry(plugin_files)
    rows = [
        {
            "kind": kind,
            "name": name,
            "from": origin.distribution,
            "description": registry.describe(kind, name),
        }
        for (kind, name), origin in sorted(registry.origins.items())
    ]
    if json_stream is not None:
        failures = [{"plugin": f.plugin, "reason": f.reason} for f in registry.failures]
        print_json({"plugins": rows, "failures": failures}, json_stream)
    else:
        for row in rows:
            line = f"{row['kind']:10} {row['name']:24} {row['from']:24} {row['description']}"
            click.echo(line.rstrip())
        warn_of_failures(registry)
    if registry.failures:
        sys.exit(3)
