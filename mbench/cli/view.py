"""`mbench view`: show reports in a browser, and follow those that are being written."""

from __future__ import annotations

import threading
import webbrowser
from pathlib import Path
from urllib.parse import quote

import click


@click.command("view")
@click.argument("directory", type=click.Path(path_type=Path), default=Path("reports"))
@click.option("--port", type=click.IntRange(1, 65535), help="Listen there [default: a free port].")
@click.option("--no-open", is_flag=True, help="Only print the address; open no browser.")
def command(directory: Path, port: int | None, no_open: bool) -> None:
    """Serve DIRECTORY, a report or a folder of reports, to browsers on this machine.

    Open pages reload when their report is written anew, as `mbench run` does about every minute
    while it evaluates. Ctrl-C ends it.
    """
    from mbench.cli.served_folder import HOST, FolderServer

    if not directory.is_dir():
        from mbench.core.errors import did_you_mean

        beside = [] if directory.exists() else map(str, directory.parent.glob("*/"))
        meant = did_you_mean(str(directory), beside)
        raise click.UsageError(
            f"{directory} is no folder"
            + (meant or ": give a report's, e.g. reports/quickstart, or that of all")
        )
    try:
        server = FolderServer(directory, port or 0)
    except OSError as error:
        raise click.UsageError(
            f"--port {port}: {HOST} cannot listen there ({error.strerror}); without --port it"
            " takes a free one"
        ) from None
    address = server.address + _first_page(directory)
    click.echo(address)
    if not no_open:
        # Some browsers are programs of this terminal that return only when they end.
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo("ended", err=True)


def _first_page(directory: Path) -> str:
    """The only page below a folder, a report or the list of some, else the folder's own page."""
    from mbench.cli.served_folder import pages_within
    from mbench.storage.results_folder import JSON

    within = pages_within(directory)
    if (directory / JSON).exists() or len(within) != 1:
        return ""
    return f"{quote(within[0])}/"
