"""`qed completion`: the script with which a shell completes qed's commands and options."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

from qed.cli.options import command, current_session

__all__ = ["COMPLETE_VARIABLE", "PROGRAM", "completion"]

PROGRAM: Final = "qed"
COMPLETE_VARIABLE: Final = "_QED_COMPLETE"


@command(
    "completion",
    examples=[
        'eval "$(qed completion bash)"',
        'eval "$(qed completion zsh)"',
        "qed completion fish > ~/.config/fish/completions/qed.fish",
    ],
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell.

    For bash and zsh, add the line below to your shell's start-up file.
    """
    root = click.get_current_context().find_root().command
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    current_session().terminal.text(kind(root, {}, PROGRAM, COMPLETE_VARIABLE).source())
