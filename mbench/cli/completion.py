"""`mbench completion`: what makes a shell complete commands, options and names."""

from __future__ import annotations

import click

SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print a script by which a shell completes mbench's commands, options and names.

    \b
    bash: eval "$(mbench completion bash)" in ~/.bashrc
    zsh:  eval "$(mbench completion zsh)" in ~/.zshrc
    fish: mbench completion fish > ~/.config/fish/completions/mbench.fish
    """
    from click.shell_completion import get_completion_class

    from mbench.cli import COMPLETING, group

    completion = get_completion_class(shell)
    if completion is None:
        raise click.UsageError(f"this version of click completes nothing in {shell}")
    click.echo(completion(group, {}, "mbench", COMPLETING).source())
