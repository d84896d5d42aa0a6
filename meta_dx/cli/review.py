"""``meta-dx review``: the clinician's pages, their accounts, and the audit trail."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meta_dx.cli.common import CohortOption, HomeOption, JsonOption, existing_home, project_of
from meta_dx.cli.output import emit_json, say, table
from meta_dx.errors import MetaDxError

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

    from meta_dx.review.desk import Desk

_BY = "command line"

app = typer.Typer(help="The clinician's review pages.", no_args_is_help=True)


@app.command()
def serve(
    cohort: CohortOption = None,
    home: HomeOption = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; loopback unless told otherwise.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8765,
    name: Annotated[
        list[str] | None, typer.Option(help="Another name browsers may ask for; may be repeated.")
    ] = None,
    proxy: Annotated[
        list[str] | None,
        typer.Option(
            help="Address or network of a proxy with TLS on another machine, which is believed that a browser came by "
            "https; may be repeated."
        ),
    ] = None,
) -> None:
    """Serve the review pages; a home without accounts gets an administrator, whose password is told once."""
    import threading

    import uvicorn

    from meta_dx.faults import quietly
    from meta_dx.records.subjects import unbound_accounts
    from meta_dx.review.app import LOOPBACK, create_app, without_quotes
    from meta_dx.review.rendering import built_files
    from meta_dx.steps.review import keep_current, open_desk

    built_files()
    project = project_of(cohort, home)
    existing_home(project.home.root)
    desk = open_desk(project)
    if not desk.accounts.all():
        account, password = desk.accounts.add("admin", "administrator")
        say(
            f"First sign-in: {account.name} / {password} (told once, to be replaced; it makes the other accounts)"
        )
    if desk.options.openid.issuer and (unbound := unbound_accounts(desk.records)):
        say(
            f"Bound to no issuer, so nobody gets in through OpenID Connect with them: {', '.join(unbound)}. If "
            f"{desk.options.openid.issuer} calls the same people by these subjects: meta-dx review bind-subjects"
        )
    hosts = {*LOOPBACK, host, *(name or ())}
    config = server_config(without_quotes(create_app(desk, hosts), desk.home.root), host, port, proxy or ())
    stop = threading.Event()
    for work in (desk.catch_up, partial(keep_current, project, desk, stop)):
        threading.Thread(target=quietly, args=(work, project.home.root), daemon=True).start()
    server = uvicorn.Server(config)
    say(f"Review pages on http://{host}:{port}/ (Ctrl-C ends them)")
    try:
        server.run()
    finally:
        stop.set()


def server_config(served: ASGIApp, host: str, port: int, proxies: Iterable[str] = ()) -> uvicorn.Config:
    """Return how the pages are served; proxies on this machine are believed without being named.

    Raises
    ------
    MetaDxError
        ``bad_proxy``.
    """
    import ipaddress

    import uvicorn

    for proxy in proxies:
        try:
            ipaddress.ip_network(proxy)
        except ValueError:
            raise MetaDxError(
                "bad_proxy",
                f"'{proxy}' cannot be a proxy: --proxy takes its address (192.0.2.7) or a network (192.0.2.0/24).",
            ) from None
    trusted = ["127.0.0.1", "::1", *proxies]
    return uvicorn.Config(
        served, host=host, port=port, log_level="warning", server_header=False, forwarded_allow_ips=trusted
    )


@app.command("add-user")
def add_user(
    name: Annotated[str, typer.Argument(help="What they sign in with.")],
    role: Annotated[str, typer.Option(help="reader, adjudicator, lead or administrator.")] = "reader",
    subject: Annotated[
        str | None,
        typer.Option(help="Subject at the provider of OpenID Connect; then there is no password."),
    ] = None,
    cohort: CohortOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Make an account; its first password is told once and has to be replaced."""
    from meta_dx.records.subjects import Subject

    desk = _desk(home)
    whom = Subject(_issuer(cohort, home), subject) if subject else None
    account, password = desk.accounts.add(name, role, subject=whom, by=_BY)
    if json:
        emit_json({"name": account.name, "role": account.role, "password": password})
    else:
        say(f"{account.name} ({account.role}){f', first password {password}' if password else ''}")


@app.command("bind-subjects")
def bind_subjects(
    earlier: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Issuer they are bound to now, from which the same people have moved; without it, those from "
            "before issuers were kept.",
        ),
    ] = None,
    cohort: CohortOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Bind subjects of OpenID Connect to the provider in section review.openid, which calls the same people by them."""
    from meta_dx.records import subjects

    desk, issuer = _desk(home), _issuer(cohort, home)
    bound, left = subjects.bind_subjects(desk.trail, issuer, earlier=earlier, by=_BY)
    if json:
        emit_json({"issuer": issuer, "bound": bound, "left": left})
        return
    say(f"bound to {issuer}: {', '.join(bound) or 'nobody'}")
    if left:
        say(f"left, since another account has their subject of this issuer: {', '.join(left)}")


@app.command("users")
def users(home: HomeOption = None, json: JsonOption = False) -> None:
    """List the accounts."""
    found = _desk(home).accounts.all()
    if json:
        emit_json([vars(account) for account in found])
    else:
        rows = [
            [a.name, a.role, "open" if a.enabled else "closed", "yes" if a.must_change else ""] for a in found
        ]
        table(["name", "role", "state", "new password needed"], rows)


@app.command("reset-password")
def reset_password(name: Annotated[str, typer.Argument(help="Whose.")], home: HomeOption = None) -> None:
    """Give an account a new password and end its sessions; it has to be replaced at the next sign-in."""
    say(f"{name}: {_desk(home).accounts.set_password(name, by=_BY)}")


@app.command("verify-audit")
def verify_audit(home: HomeOption = None, json: JsonOption = False) -> None:
    """Tell whether the audit trail is whole: nothing changed, nothing removed, nothing cut off."""
    verdict = _desk(home).trail.verify()
    if json:
        emit_json({**vars(verdict), "whole": verdict.whole})
    elif verdict.whole:
        say(f"whole: {verdict.lines} lines, {verdict.anchors} anchors, head {verdict.head or '-'}")
    if not verdict.whole:
        raise MetaDxError("audit_not_whole", f"The audit trail is not whole: {' '.join(verdict.faults)}")


def _desk(home: Path | None) -> Desk:
    from meta_dx.home import Home
    from meta_dx.review.desk import Desk

    return Desk(Home.open(existing_home(home)))


def _issuer(cohort: Path | None, home: Path | None) -> str:
    issuer = project_of(cohort, home).settings.review.openid.issuer
    if not issuer:
        raise MetaDxError(
            "no_openid",
            "No provider is configured: set [review.openid] issuer in the cohort file (docs/review.md).",
        )
    return issuer
