"""What the shell completes: mount points, and the script that makes the shell ask."""

from __future__ import annotations

import os
import re

import click
from click.shell_completion import CompletionItem, get_completion_class

VARIABLE = "_DAGFS_COMPLETE"


def mountpoints(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the mount points of this user, as absolute paths or relative to here; no mount is touched for it."""
    from dagfs.config import places
    from dagfs.daemon.state import Registry

    here = os.getcwd()
    found = []
    for state in Registry(places(os.environ).runtime).states().values():
        relative = os.path.relpath(state.mountpoint, here) if state.mountpoint.startswith(f"{here}/") else ""
        about = f"{state.repo} at {state.commit[:12]}"
        found += [
            CompletionItem(_word(path), help=about)
            for path in (relative, state.mountpoint)
            if path.startswith(incomplete)
        ]
    return [item for item in found if item.value]


def _word(path: str) -> str:
    """Write a path as the shell wants it: zsh and fish quote what they are given; bash does not, and its `read` takes
    one backslash away."""
    asks_bash = os.environ.get(VARIABLE, "").startswith("bash")
    return re.sub(r"([^\w/.,:@%+=-])", r"\\\\\1", path) if asks_bash else path


def directories(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete directories."""
    return [CompletionItem(incomplete, type="dir")]


def files(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete files and directories."""
    return [CompletionItem(incomplete, type="file")]


@click.command(short_help="Complete commands and mount points in a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes SHELL complete dagfs commands, options and mount points.

    bash, in ~/.bashrc: eval "$(dagfs completion bash)". zsh, in ~/.zshrc: eval "$(dagfs completion zsh)".
    fish: dagfs completion fish > ~/.config/fish/completions/dagfs.fish
    """
    root = ctx.find_root()
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 -- click has all three  # nosec B101
    script = kind(root.command, {}, "dagfs", VARIABLE)
    click.echo(script.source())
    if shell == "zsh":  # click's own, found in $fpath, forgets to do so at its first call and then misses the second
        click.echo(f"compdef {script.func_name} dagfs")
