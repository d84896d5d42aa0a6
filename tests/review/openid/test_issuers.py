"""Another provider may call somebody else by the same subject: who comes from there gets nobody's account."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests
from fastapi.testclient import TestClient
from sqlalchemy import update
from typer.testing import CliRunner

from meta_dx.cli.app import app as cli
from meta_dx.records.schema import AccountRow
from meta_dx.review import app as application
from meta_dx.review.desk import Desk
from meta_dx.review.openid_options import SECRET_VARIABLE, OpenIdOptions, OpenIdRoles
from tests.review.openid.provider import CLIENT, SECRET, Provider, providing


@pytest.fixture
def providers(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Provider, Provider]]:
    """Two providers; both call somebody u-1."""
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)
    with providing(Provider()) as ours, providing(Provider()) as other:
        other.claims = {"sub": "u-1", "preferred_username": "Mallory", "groups": ["dx"]}
        yield ours, other


def sign_in(desk: Desk, provider: Provider, **options: object):  # type: ignore[no-untyped-def]
    """Come through a provider, and return the page that is shown then."""
    openid = OpenIdOptions(provider.issuer, CLIENT, **options)  # type: ignore[arg-type]
    desk.options = replace(desk.options, openid=openid)
    client = TestClient(application.create_app(desk, {"testserver"}), follow_redirects=False)
    location = client.get("/sign-in/openid").headers["location"]
    return client.get(requests.get(location, allow_redirects=False, timeout=10).headers["Location"])


def forget_issuers(desk: Desk) -> None:
    """Leave the accounts as a version has that kept no issuers."""
    with desk.records.transaction() as session:
        session.execute(update(AccountRow).values(issuer=None))


def test_after_a_change_of_provider_the_same_subject_opens_nobodys_account(
    desk: Desk, providers: tuple[Provider, Provider]
) -> None:
    ours, other = providers
    desk.accounts.add("anna", "lead", subject=ours.named("u-1"))
    assert sign_in(desk, ours).status_code == 200
    refused = sign_in(desk, other)
    assert refused.status_code == 403
    assert "no account here belongs to you" in refused.text
    assert desk.trail.lines()[0].details["why"] == "openid_no_account"
    assert sign_in(desk, ours).status_code == 200, "the way back is open"


def test_a_new_provider_makes_its_people_accounts_of_their_own(
    desk: Desk, providers: tuple[Provider, Provider]
) -> None:
    ours, other = providers
    desk.accounts.add("anna", "lead", subject=ours.named("u-1"))
    roles = OpenIdRoles(reader=("dx",))
    assert sign_in(desk, other, role_claim="groups", roles=roles, create_accounts=True).status_code == 200
    assert desk.trail.lines()[0].account == "mallory"
    roles_now = {account.name: account.role for account in desk.accounts.all()}
    assert roles_now == {"anna": "lead", "mallory": "reader"}, "nor does its claim change the role of another"


@pytest.mark.parametrize("creating", [False, True])
def test_an_account_from_before_issuers_were_kept_is_given_to_nobody(
    desk: Desk, providers: tuple[Provider, Provider], creating: bool
) -> None:
    """Had the first who comes adopted it, a change of provider at the update would have let another in."""
    ours, other = providers
    desk.accounts.add("anna", "lead", subject=ours.named("u-1"))
    forget_issuers(desk)
    more = {"role_claim": "groups", "roles": OpenIdRoles(reader=("dx",)), "create_accounts": True}
    for provider in (other, ours):
        provider.claims["groups"] = ["dx"]
        refused = sign_in(desk, provider, **(more if creating else {}))
        assert refused.status_code == 403
        assert "bind-subjects" in refused.text
        assert desk.trail.lines()[0].details["why"] == "openid_unbound"
    assert [account.name for account in desk.accounts.all()] == ["anna"]


def test_an_administrator_binds_them_to_the_provider_of_the_cohort_file(
    desk: Desk, providers: tuple[Provider, Provider], tmp_path: Path
) -> None:
    ours, other = providers
    desk.accounts.add("anna", "reader", subject=ours.named("u-1"))
    forget_issuers(desk)
    cohort = tmp_path / "cohort.toml"

    def run(*arguments: str, issuer: str) -> dict[str, object]:
        openid = f'[review.openid]\nissuer = "{issuer}"\nclient_id = "{CLIENT}"\n' if issuer else ""
        cohort.write_text(f'[cohort]\nname = "trial"\nsources = ["."]\n{openid}')
        command = ["review", *arguments, "--cohort", str(cohort), "--home", str(desk.home.root), "--json"]
        done = CliRunner().invoke(cli, command)
        assert done.exit_code == 0, done.exception
        return json.loads(done.stdout)

    assert run("bind-subjects", issuer=ours.issuer) == {"issuer": ours.issuer, "bound": ["anna"], "left": []}
    assert sign_in(desk, ours).status_code == 200
    assert sign_in(desk, other).status_code == 403
    made = run("add-user", "mallory", "--subject", "u-1", issuer=other.issuer)
    assert (made["name"], made["password"]) == ("mallory", "")
    assert sign_in(desk, other).status_code == 200
    assert desk.trail.lines()[0].account == "mallory"
    command = [
        "review",
        "add-user",
        "bert",
        "--subject",
        "u-2",
        "--cohort",
        str(cohort),
        "--home",
        str(desk.home.root),
    ]
    cohort.write_text(cohort.read_text().partition("[review.openid]")[0])
    assert "set [review.openid] issuer" in str(CliRunner().invoke(cli, command).exception)
