"""Section ``[pacs]`` of ``cohort.toml``: how archives are spoken to. What is fetched stands in the source's address."""

from __future__ import annotations

import re
from dataclasses import dataclass

from meta_dx.errors import refuse_values

_AE_TITLE = re.compile(r"[A-Za-z0-9_.-]{1,16}")


def is_ae_title(text: str) -> bool:
    """Tell whether a text will do as an application entity title: 1 to 16 letters, digits, ``_``, ``-``, ``.``."""
    return _AE_TITLE.fullmatch(text) is not None


@dataclass(frozen=True)
class PacsOptions:
    """Section ``[pacs]``.

    Secrets are never options: they come from the file that ``credentials`` names, or from the environment
    (:mod:`meta_dx.dicom.pacs.credentials`).

    Parameters
    ----------
    credentials : str
        File with one section a server; only its owner may read it. Empty: the environment.
    ca_file : str
        Certificates (PEM) to trust instead of the system's; empty means the system's.
    allow_http : bool
        Speak DICOMweb without TLS to other machines too. Pictures and passwords travel in the clear then.
    ae_title : str
        How we call ourselves in DIMSE.
    listen_host : str
        Address that C-MOVE's listener is bound to.
    listen_port : int
        Its port.
    connections : int
        DICOMweb: instances fetched at the same time.
    page_size : int
        DICOMweb: matches asked for in one answer.
    connect_seconds, read_seconds : float
        How long to wait for a connection; for the head of an answer, for a PDU, and for the next bytes.
    instance_seconds : float
        DICOMweb: how long the transfer of one instance, or of one answer to a query, may take.
    retries : int
        How often a request that failed for now is repeated.
    backoff_seconds : float
        Pause before the first repetition; it doubles each time, and varies at random by half of itself.
    max_pause_seconds : float
        The longest pause, whatever the server asks for.
    recheck_days : int
        A study that brought something new within this time is looked into again even when its counts are as
        they were; an older one only when the server's entry of it has changed.
    """

    credentials: str = ""
    ca_file: str = ""
    allow_http: bool = False
    ae_title: str = "META_DX"
    listen_host: str = "127.0.0.1"
    listen_port: int = 11112
    connections: int = 2
    page_size: int = 200
    connect_seconds: float = 10.0
    read_seconds: float = 60.0
    instance_seconds: float = 900.0
    retries: int = 4
    backoff_seconds: float = 1.0
    max_pause_seconds: float = 60.0
    recheck_days: int = 30

    def __post_init__(self) -> None:
        refuse_values(
            self,
            [
                ("ae_title", is_ae_title(self.ae_title), "1 to 16 letters, digits, '_', '-' or '.'"),
                ("listen_host", bool(self.listen_host), "an address of this machine"),
                ("listen_port", 0 <= self.listen_port < 1 << 16, "a port, 0 to 65535"),
                ("connections", 1 <= self.connections <= 16, "1 to 16"),
                ("page_size", 1 <= self.page_size <= 10_000, "1 to 10000"),
                ("retries", 0 <= self.retries <= 20, "0 to 20"),
                ("recheck_days", self.recheck_days >= 0, "a whole number from 0"),
                ("backoff_seconds", self.backoff_seconds >= 0, "a number from 0"),
                ("max_pause_seconds", self.max_pause_seconds >= 0, "a number from 0"),
                *(
                    (name, getattr(self, name) > 0, "a number above 0")
                    for name in ("connect_seconds", "read_seconds", "instance_seconds")
                ),
            ],
        )
