"""The HTTP session with an archive: nothing of the environment, and no answer whose head never ends."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meta_dx.dicom.pacs.credentials import Credentials
from meta_dx.dicom.pacs.options import PacsOptions
from meta_dx.errors import MetaDxError

if TYPE_CHECKING:
    import requests
    from requests.adapters import HTTPAdapter


def session_of(options: PacsOptions, credentials: Credentials) -> requests.Session:
    """Make a session.

    Parameters
    ----------
    options : PacsOptions
        Section ``[pacs]``; ``read_seconds`` is also what the whole head of an answer may take.
    credentials : Credentials
        The login.

    Raises
    ------
    MetaDxError
        ``no_ca_file``.
    """
    import requests
    from requests.auth import HTTPBasicAuth

    if options.ca_file and not Path(options.ca_file).is_file():
        raise MetaDxError(
            "no_ca_file", f"[pacs] ca_file {options.ca_file} is no file: name the certificates (PEM)."
        )
    # Its warnings name the address of the request, which holds UIDs.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    logging.getLogger("urllib3.connection").setLevel(logging.CRITICAL)
    session = requests.Session()
    session.trust_env = False  # no proxy, login or certificate that the user did not write into [pacs]
    session.verify = options.ca_file or True
    session.headers["Accept-Encoding"] = "identity"  # pictures are packed already, and nothing swells
    adapter = _timely_adapter(options.connections)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    if credentials.token:
        session.headers["Authorization"] = f"Bearer {credentials.token}"
    elif credentials.user:
        session.auth = HTTPBasicAuth(credentials.user.encode(), credentials.password.encode())
    return session


@contextmanager
def within(seconds: float, cut: Callable[[], None]) -> Iterator[None]:
    """Cut a connection off, from a thread of its own, when the block takes longer.

    Time-outs of a socket count from byte to byte. What is being read then ends as if the other side had hung up.
    """

    def end() -> None:
        with suppress(OSError, ValueError, RuntimeError):  # it has ended by itself
            cut()

    timer = threading.Timer(max(seconds, 0.0), end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _timely_adapter(connections: int) -> HTTPAdapter:
    from requests.adapters import HTTPAdapter
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
    from urllib3.connection import HTTPConnection, HTTPSConnection

    class Plain(HTTPConnection):
        def getresponse(self) -> Any:
            return _in_time(self, super().getresponse)

    class Secure(HTTPSConnection):
        def getresponse(self) -> Any:
            return _in_time(self, super().getresponse)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **kwargs)
            self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}

    return Adapter(pool_connections=1, pool_maxsize=connections, max_retries=0)


def _in_time(connection: Any, response: Callable[[], Any]) -> Any:
    with within(connection.timeout, lambda: connection.sock.shutdown(socket.SHUT_RDWR)):
        return response()
