"""Who may ask for what: every route of the application, every role, and nobody at all."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.routing import iter_route_contexts
from httpx2 import Response

from meta_dx.records.accounts import RIGHTS
from meta_dx.review.desk import Desk
from meta_dx.review.openid_options import OpenIdOptions
from meta_dx.review.options import ReviewOptions
from tests.review.conftest import Browser

Browsers = Callable[..., Browser]

#: Open to everybody; open to everybody who is signed in, also with a password that has to be replaced first.
OPEN, OWN = (
    {("GET", "/sign-in"), ("POST", "/sign-in")},
    {
        ("GET", "/session"),
        ("POST", "/session"),
        ("POST", "/sign-out"),
        ("GET", "/password"),
        ("POST", "/password"),
        ("GET", "/"),
    },
)
#: The right that each other route needs. A new route has to be entered here.
NEEDED = {
    ("GET", "/worklist"): "read",
    ("GET", "/next"): "read",
    ("GET", "/cases/{study}"): "read",
    ("GET", "/cases/{study}/images"): "read",
    ("GET", "/cases/{study}/lengths"): "read",
    ("POST", "/cases/{study}/lengths"): "read",
    ("GET", "/cases/{study}/frames/{name}/{number}"): "read",
    ("GET", "/cases/{study}/evidence/{image}"): "read",
    ("GET", "/cases/{study}/saliency"): "read",
    ("GET", "/cases/{study}/saliency.png"): "read",
    ("GET", "/cases/{study}/report.dcm"): "export",
    ("GET", "/cases/{study}/report.json"): "export",
    ("POST", "/cases/{study}/draft"): "read",
    ("POST", "/cases/{study}/read"): "read",
    ("POST", "/cases/{study}/decide"): "read",
    ("POST", "/cases/{study}/adjudicate"): "adjudicate",
    ("POST", "/cases/{study}/identity"): "identity",
    ("POST", "/cases/{study}/store"): "store",
    ("GET", "/teach"): "teach",
    ("POST", "/teach"): "teach",
    ("GET", "/lead"): "lead",
    ("POST", "/lead/model"): "lead",
    ("POST", "/lead/queue"): "lead",
    ("GET", "/lead/decisions.csv"): "lead",
    ("GET", "/audit"): "audit",
    ("GET", "/accounts"): "accounts",
    ("POST", "/accounts"): "accounts",
    ("POST", "/accounts/{name}"): "accounts",
}


#: Of a provider that vouches for readers, where one is configured; open, as they lead to a sign-in.
VOUCHED = {("GET", "/sign-in/openid"), ("GET", "/sign-in/openid/back")}


def routes_of(desk: Desk) -> set[tuple[str, str]]:
    from meta_dx.review.app import create_app

    contexts = list(iter_route_contexts(create_app(desk).routes))
    return {(method, each.path) for each in contexts if each.methods for method in each.methods - {"HEAD"}}


def ask(person: Browser, method: str, path: str, study: str, frame: str, csrf: str) -> Response:
    parts = frame.rsplit("/", 2)
    address = path.format(study=study, name=parts[1], number=parts[2], image="2.25.1")
    return person.client.request(method, address, **({} if method == "GET" else {"data": {"csrf": csrf}}))


@pytest.fixture
def case(desk: Desk, browser: Browsers) -> tuple[str, str]:
    """A case that somebody has read, and the address of a picture of it."""
    other = browser("reader", "other")
    study = other.cases()[0]
    other.read(study)
    manifest = other.get(f"/cases/{study}/images").json()
    return study, manifest["studies"][0]["series"][0]["frames"][0]["url"]


def test_every_route_has_its_entry(desk: Desk) -> None:
    assert routes_of(desk) == OPEN | OWN | set(NEEDED)
    openid = OpenIdOptions("https://provider.example", "client")
    everything = ReviewOptions(archive="folder", saliency=True, openid=openid)
    assert routes_of(Desk(desk.home, everything)) == OPEN | OWN | VOUCHED | set(NEEDED)


def test_what_is_not_a_route_is_a_folder_of_built_files(desk: Desk) -> None:
    from meta_dx.review.app import create_app

    others = [each.path for each in iter_route_contexts(create_app(desk).routes) if not each.methods]
    assert set(others) <= {"/static"}


@pytest.mark.parametrize("role", list(RIGHTS))
def test_a_role_reaches_its_routes_and_no_others(
    desk: Desk, browser: Browsers, case: tuple[str, str], role: str
) -> None:
    person = browser(role)
    csrf = person.csrf
    for (method, path), right in NEEDED.items():
        answer = ask(person, method, path, *case, csrf)
        assert answer.status_code < 500, (method, path)
        assert answer.headers.get("location") != "/sign-in", (method, path)
        refused = answer.status_code == 403 and "role does not allow" in answer.text
        assert refused == (right not in RIGHTS[role]), (role, method, path, answer.status_code)


def test_nobody_gets_in_without_signing_in(desk: Desk, browser: Browsers, case: tuple[str, str]) -> None:
    stranger = browser("reader", "stranger", signed_in=False)
    before = len(desk.trail.lines())
    for method, path in OWN | set(NEEDED):
        for headers in ({"accept": "text/html"}, {"accept": "*/*"}, {"hx-request": "true"}):
            stranger.client.headers.update(headers)
            answer = ask(stranger, method, path, *case, "")
            assert answer.status_code in (303, 401), (method, path, headers, answer.status_code)
            assert answer.headers.get("location", "/sign-in") == "/sign-in"
            assert case[0][-8:] not in answer.text
            stranger.client.headers.pop("hx-request", None)
    assert len(desk.trail.lines()) == before


def test_a_session_that_has_ended_opens_nothing(desk: Desk, browser: Browsers, case: tuple[str, str]) -> None:
    closed, signed_out = browser("lead", "closed"), browser("lead", "out")
    token = signed_out.client.cookies["meta_dx_session"]
    signed_out.post("/sign-out")
    signed_out.client.cookies.set("meta_dx_session", token)
    desk.accounts.change("closed", enabled=False, by="test")
    for person in (closed, signed_out):
        for method, path in NEEDED:
            assert ask(person, method, path, *case, "").status_code in (303, 401), (method, path)


def test_a_given_password_opens_nothing_but_the_form_for_a_new_one(
    desk: Desk, browser: Browsers, case: tuple[str, str]
) -> None:
    person = browser("lead", "new", signed_in=False)
    person.sign_in(desk.accounts.set_password("new", by="test"))
    csrf = person.csrf
    for (method, path), right in NEEDED.items():
        answer = ask(person, method, path, *case, csrf)
        assert (answer.status_code, answer.headers["location"]) == (303, "/password"), (method, path, right)


def test_what_changes_something_needs_the_number_of_the_session_and_our_own_pages(
    desk: Desk, browser: Browsers, case: tuple[str, str]
) -> None:
    lead, administrator = browser("lead"), browser("administrator")
    people = {right: lead if right in RIGHTS["lead"] else administrator for right in set(NEEDED.values())}
    people["read"].get(f"/cases/{case[0]}")
    said = len(desk.cases.opinions(case[0]))
    for (method, path), right in {**NEEDED, **dict.fromkeys(OWN, "read")}.items():
        if method == "GET":
            continue
        person = people[right]
        for number in ("", "forged"):
            assert ask(person, method, path, *case, number).status_code == 403, path
        right_number = person.csrf
        for name, value in (("origin", "https://elsewhere.example"), ("sec-fetch-site", "cross-site")):
            person.client.headers[name] = value
            assert ask(person, method, path, *case, right_number).status_code == 403, path
            del person.client.headers[name]
    assert len(desk.cases.opinions(case[0])) == said


def test_every_form_of_a_page_carries_the_number(desk: Desk) -> None:
    from meta_dx.review import app

    for template in (Path(app.__file__).parent / "templates").glob("*.j2"):
        for form in re.findall(r"<form\b.*?</form>", template.read_text(), re.DOTALL):
            if 'method="post"' in form and template.name != "sign_in.html.j2":
                assert 'name="csrf"' in form, template.name
