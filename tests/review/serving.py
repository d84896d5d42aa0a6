"""The review pages on loopback for as long as a test or a benchmark lasts, and the people who sign in there."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.queues import Queue
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import uvicorn

    from meta_dx.review.desk import Desk

PASSWORD = "correct horse battery"  # noqa: S105 # of homes that live for minutes
PEOPLE = {"anna": "reader", "bert": "reader", "carl": "adjudicator", "lena": "lead", "otto": "administrator"}


def _server(desk: Desk) -> uvicorn.Server:
    import uvicorn

    from meta_dx.review.app import create_app

    return uvicorn.Server(uvicorn.Config(create_app(desk), host="127.0.0.1", port=0, log_level="warning"))


def _address(server: uvicorn.Server) -> str:
    """Wait until a server listens; return its address."""
    while not server.started:
        time.sleep(0.005)
    return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"


@contextmanager
def served(desk: Desk) -> Iterator[str]:
    """Serve a desk from a thread, with an account for everybody in :data:`PEOPLE`; give the address."""
    for name, role in PEOPLE.items():
        desk.accounts.add(name, role, password=PASSWORD, must_change=False)
    server = _server(desk)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield _address(server)
    finally:
        server.should_exit = True
        thread.join()


def serve(home: Path, address: Queue[str]) -> None:
    """Serve a home until the process, whose target this is, ends or is killed; put the address into a queue."""
    from meta_dx.home import Home
    from meta_dx.review.desk import Desk

    server = _server(Desk(Home.open(home)))
    threading.Thread(target=lambda: address.put(_address(server)), daemon=True).start()
    server.run()


def sign_in(client: Any, name: str, password: str = PASSWORD) -> Any:
    """Send the sign-in form with the number that it came with.

    Parameters
    ----------
    client : httpx2.Client or fastapi.testclient.TestClient
        A browser whose base address is the server's.

    Returns
    -------
    httpx2.Response
    """
    form = re.search(r'name="form" value="([^"]+)"', client.get("/sign-in").text)
    assert form, "there is no sign-in form"
    return client.post("/sign-in", data={"form": form[1], "name": name, "password": password})


def csrf_of(client: Any) -> str:
    """Return the number of the session, which has to come with whatever changes something."""
    found = re.search(r'name="csrf-token" content="([^"]*)"', client.get("/password").text)
    assert found, "there is no number of a session"
    return found[1]
