"""Pages made of the templates and of the files that the front end's build has made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from meta_dx.errors import MetaDxError
from meta_dx.records.accounts import SignIn
from meta_dx.review.wording import rights_of

STATIC = Path(__file__).with_name("static")


class Pages:
    """Renders the templates."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=PackageLoader("meta_dx.review"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
        )
        self._environment.globals["assets"] = built_files()

    def render(self, name: str, session: SignIn | None = None, theme: str = "", **values: Any) -> str:
        """Render a template for a reader."""
        account = session.account if session else None
        shared = {
            "account": account,
            "csrf": session.csrf if session else "",
            "theme": theme if theme in ("light", "dark") else "",
            "here": name,
            "seconds_left": session.seconds_left if session else 0,
            "may": rights_of(account) if account else {},
        }
        return self._environment.get_template(f"{name}.html.j2").render(**shared, **values)


def page(
    request: Request, name: str, session: SignIn | None = None, status: int = 200, **values: Any
) -> HTMLResponse:
    """Answer with a page."""
    pages: Pages = request.app.state.pages
    return HTMLResponse(pages.render(name, session, request.cookies.get("theme", ""), **values), status)


def built_files() -> dict[str, list[str]]:
    """Return the scripts and style sheets that the build has made, by ``"js"`` and ``"css"``.

    Raises
    ------
    MetaDxError
        ``web_not_built``.
    """
    path = STATIC / "manifest.json"
    if path.exists():
        entry = json.loads(path.read_text())["src/main.ts"]
        return {"js": [f"/static/{entry['file']}"], "css": [f"/static/{name}" for name in entry["css"]]}
    raise MetaDxError(
        "web_not_built", "The review pages are not built yet: run 'make web' in the project's folder."
    )
