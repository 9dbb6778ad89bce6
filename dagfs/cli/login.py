"""`dagfs login`, `logout` and `whoami`."""

from __future__ import annotations

import os
import sys
import time
import webbrowser
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dagfs.cli import options
from dagfs.errors import BadToken
from dagfs.model import printable

if TYPE_CHECKING:
    from dagfs.config import Places
    from dagfs.hub.client_tokens import StoredToken
    from dagfs.hub.login import Hub

TOKEN_CHARACTERS = 4096
INTERRUPTED = 130


@click.command()
@options.host
@click.option("--token", "by_token", is_flag=True, help="Take a token from standard input or a prompt, not a browser.")
def login(host: str | None, by_token: bool) -> None:
    """Log in to the hub, for dagfs and the DagsHub client alike.

    Opens a page of the hub in a browser and waits until the login is allowed there. Without a browser at hand, over ssh
    for example, open the page that is printed on any machine. --token takes a token of the hub's settings page.
    """
    from dagfs.config import hub_host, places
    from dagfs.hub.client_tokens import ClientTokens, Logins
    from dagfs.hub.login import Hub

    own = places(os.environ)
    try:
        with closing(Hub(hub_host(os.environ, host), os.environ)) as hub:
            token = _asked_for(hub) if by_token else _allowed(hub)
            user = hub.user(token.access_token)
            Logins(own.state).note(hub.host, token.access_token)  # first: what is stored must be known to be ours
            ClientTokens(own.client_tokens).add(hub.host, token)
            click.echo(printable(f"logged in to {hub.host} as {user}; the token is in {own.client_tokens}"))
            _tell_what_comes_first(hub.host, token, own)
    except KeyboardInterrupt:
        click.echo("\ndagfs: interrupted; nothing was stored", err=True)
        sys.exit(INTERRUPTED)


def _asked_for(hub: Hub) -> StoredToken:
    from dagfs.hub.login import app_token

    if not sys.stdin.isatty():
        return app_token(sys.stdin.readline(TOKEN_CHARACTERS).strip())
    click.echo(f"Make a token at {hub.host}/user/settings/tokens and paste it here; it is not shown.", err=True)
    try:
        return app_token(click.prompt("Token", hide_input=True, err=True).strip())
    except click.Abort:
        raise KeyboardInterrupt from None


def _allowed(hub: Hub) -> StoredToken:
    request = hub.begin()
    click.echo("Open this page in a browser to allow the login:", err=True)
    click.echo(f"\n    {request.url}\n", err=True)
    if _has_browser():
        webbrowser.open(request.url)
    click.echo("waiting for it; Ctrl-C gives up", err=True)
    return hub.finish(request)


def _has_browser() -> bool:
    """Tell whether a browser would open where the user sits: not one of text, in the terminal of an ssh session."""
    if os.environ.get("BROWSER"):
        return True
    if os.environ.get("SSH_CONNECTION") or os.environ.get("SSH_TTY"):
        return False
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _tell_what_comes_first(host: str, stored: StoredToken, own: Places) -> None:
    from dagfs.hub.auth import find_token

    found = find_token(None, os.environ, own.client_tokens, host, time.time())
    if found.current() != stored.access_token:
        text = f"note: dagfs goes on using the token of {found.source}, which comes first: `dagfs whoami`"
        click.echo(printable(text), err=True)


@click.command()
@options.host
@click.option("--all", "everything", is_flag=True, help="Remove the hub's tokens that other programs have stored, too.")
def logout(host: str | None, everything: bool) -> None:
    """Forget the tokens that `dagfs login` has stored for the hub.

    They stay valid: the hub's settings page revokes them.
    """
    from dagfs.config import hub_host, places
    from dagfs.hub.client_tokens import ClientTokens, Logins
    from dagfs.hub.urls import check_host

    own, hub = places(os.environ), check_host(hub_host(os.environ, host))
    file, logins = ClientTokens(own.client_tokens), Logins(own.state)
    ours = logins.ours(hub)
    count = file.remove(hub, lambda token: everything or ours(token))
    logins.forget(hub)
    click.echo(f"{_tokens(count)} of {hub} removed from {printable(str(own.client_tokens))}")
    left = len(file.values(hub))
    if left:
        click.echo(f"{_tokens(left)} that other programs have stored there stay; --all removes them, too", err=True)


def _tokens(count: int) -> str:
    return f"{count} token{'' if count == 1 else 's'}"


@click.command(short_help="Tell whose token is used, and where it is from.")
@options.host
@options.token_file
def whoami(host: str | None, token_file: Path | None) -> None:
    """Tell whose token dagfs uses for the hub, and where it comes from; never the token itself."""
    from dagfs.config import hub_host, places
    from dagfs.hub.auth import find_token
    from dagfs.hub.login import Hub
    from dagfs.hub.urls import check_host

    url = check_host(hub_host(os.environ, host))
    token = find_token(token_file, os.environ, places(os.environ).client_tokens, url, time.time())
    source = f"{token.source} ({token.unused})" if token.unused else token.source
    if token.current() is None:
        click.echo(printable(f"dagfs: no token for {url}: `dagfs login`"), err=True)
        if token.unused:
            click.echo(printable(f"dagfs: {token.unused}"), err=True)
        sys.exit(1)
    with closing(Hub(url, os.environ, token)) as hub:
        try:
            user = hub.user()
        except BadToken as error:
            raise BadToken(f"{error}; it is that of {source}") from error
    click.echo(printable(f"{user} at {url}, by the token of {source}"))
