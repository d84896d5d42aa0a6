"""Whose account a sign-in opens, in which role, and which accounts are made."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meta_dx.errors import MetaDxError
from meta_dx.review.desk import Desk
from meta_dx.review.openid_options import OpenIdOptions, OpenIdRoles
from tests.review.openid.conftest import Guest
from tests.review.openid.provider import CLIENT, Provider
from tests.review.serving import PASSWORD

GROUPS = OpenIdRoles(lead=("dx-lead",), reader=("dx-read", "dx-all"), administrator=("dx-admin",))


def test_the_claim_decides_the_role_at_every_sign_in(desk: Desk, guest) -> None:
    person = guest(role_claim="groups", roles=GROUPS)
    for groups, role in ((["x", "dx-lead", "dx-read"], "lead"), ("dx-all", "reader")):
        person.provider.claims["groups"] = groups
        assert person.sign_in().status_code == 200
        assert desk.accounts.of_subject(person.provider.named("u-1")).role == role  # type: ignore[union-attr]
    for groups in (["x"], [], None, {"dx-lead": 1}, 7):
        person.provider.claims["groups"] = groups
        answer = person.sign_in()
        assert (answer.status_code, "none of your groups" in answer.text) == (403, True)


def test_accounts_are_made_only_when_that_is_configured(desk: Desk, provider: Provider) -> None:
    provider.claims = {"sub": "u-9", "preferred_username": "Nina", "groups": ["dx-read"]}
    assert Guest(desk, provider, role_claim="groups", roles=GROUPS).sign_in().status_code == 403
    person = Guest(desk, provider, role_claim="groups", roles=GROUPS, create_accounts=True)
    assert person.sign_in().status_code == 200
    made = desk.accounts.of_subject(provider.named("u-9"))
    assert made is not None
    assert (made.name, made.role) == ("nina", "reader")
    assert person.inside


def test_a_new_account_never_takes_over_one_of_the_same_name(desk: Desk, provider: Provider) -> None:
    desk.accounts.add("nina", "lead", password=PASSWORD, must_change=False)
    person = Guest(desk, provider, role_claim="groups", roles=GROUPS, create_accounts=True)
    for name in ("Nina", "no name at all!", ""):
        provider.claims = {"sub": "u-9", "preferred_username": name, "groups": ["dx-read"]}
        answer = person.sign_in()
        assert (answer.status_code, "Ask an administrator" in answer.text) == (403, True)
    assert desk.accounts.of_subject(provider.named("u-9")) is None


def test_an_address_by_mail_counts_only_when_it_is_verified(desk: Desk, provider: Provider) -> None:
    desk.accounts.add("anna", "reader", subject=provider.named("anna@hospital.example"))
    person = Guest(desk, provider, subject_claim="email")
    for verified, status in ((False, 403), ("true", 403), (None, 403), (True, 200)):
        provider.claims = {"sub": "x", "email": "anna@hospital.example", "email_verified": verified}
        assert person.sign_in().status_code == status


def test_an_administrator_makes_an_account_with_a_subject(desk: Desk, provider: Provider, browser) -> None:
    openid = OpenIdOptions(provider.issuer, CLIENT, label="the hospital")
    desk.options = replace(desk.options, openid=openid)
    otto = browser("administrator", "otto")
    assert "OpenID subject" in otto.get("/accounts").text
    told = otto.post("/accounts", name="anna", role="reader", subject=" u-1 ").text
    assert "signs in with the hospital and has no password" in told
    assert "already" in otto.post("/accounts", name="bert", role="reader", subject="u-1").text
    assert Guest(desk, provider).sign_in().status_code == 200


@pytest.mark.parametrize("name", ["openid", "OpenID ", "meta_dx"])
def test_nobody_is_called_like_the_system(desk: Desk, name: str) -> None:
    with pytest.raises(MetaDxError, match="stands for the system") as fault:
        desk.accounts.add(name, "reader")
    assert fault.value.code == "bad_account"
