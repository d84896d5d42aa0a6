"""``meta-dx receive``: a C-STORE listener for archives and modalities that send by themselves."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from meta_dx.dicom.pacs.address import is_loopback
from meta_dx.dicom.pacs.connections import Places, prepared
from meta_dx.dicom.pacs.dimse_requests import SYNTAXES
from meta_dx.dicom.pacs.landing import Landing, PartialFile
from meta_dx.dicom.pacs.options import is_ae_title
from meta_dx.dicom.pacs.store import (
    SUCCESS,
    quiet_entity,
    storage_classes,
    stored,
    streaming_to,
)
from meta_dx.errors import MetaDxError

log = logging.getLogger("meta_dx")


@dataclass(frozen=True)
class ListenerOptions:
    """What the listener is bound to and whom it takes instances from.

    Parameters
    ----------
    host : str
        Address that it is bound to.
    port : int
        Its port; 0 takes a free one.
    ae_title : str
        How it calls itself; senders that call another title are turned away.
    allowed : tuple of str
        AE titles that may send. Empty means any, which is possible on the loopback only.
    begin_seconds : float
        A connection that has not asked for an association by then is closed.
    idle_seconds : float
        An association on which nothing happens for that long is ended, and so is one that takes longer for a PDU.
    places, places_a_host : int
        Connections at the same time, and those of one host, by its address: the others keep the rest.

    Raises
    ------
    MetaDxError
        ``bad_value``, or ``open_listener`` when others could reach it and nobody is named in ``allowed``.
    """

    host: str = "127.0.0.1"
    port: int = 11112
    ae_title: str = "META_DX"
    allowed: tuple[str, ...] = ()
    begin_seconds: float = 10.0
    idle_seconds: float = 60.0
    places: int = 20
    places_a_host: int = 8

    def __post_init__(self) -> None:
        for title in (self.ae_title, *self.allowed):
            if not is_ae_title(title):
                raise MetaDxError(
                    "bad_value",
                    f"'{title}' is no AE title: allowed are 1 to 16 letters, digits, '_', '-' and '.'.",
                )
        if not 0 <= self.port < 1 << 16:
            raise MetaDxError("bad_value", f"port is {self.port}: allowed is 0 to 65535.")
        if not is_loopback(self.host) and not self.allowed:
            raise MetaDxError(
                "open_listener",
                f"A listener on {self.host} can be reached from other machines: "
                "name who may send with --allow AE_TITLE.",
            )


@dataclass
class Listener:
    """A running listener.

    Parameters
    ----------
    port : int
        Where it listens.
    counts : Counter of str
        ``received`` and ``refused`` instances so far.
    """

    port: int
    counts: Counter[str] = field(default_factory=Counter)


@contextmanager
def listening(landing: Landing, options: ListenerOptions) -> Iterator[Listener]:
    """Listen until the block ends; instances under way then are ended and not kept.

    Parameters
    ----------
    landing : Landing
        Where complete instances become visible, in the order in which they arrived.
    options : ListenerOptions
        Whom to listen to.

    Yields
    ------
    Listener

    Raises
    ------
    MetaDxError
        ``cannot_listen`` when the port is taken or not ours to take.
    """
    from pynetdicom import ALL_TRANSFER_SYNTAXES, evt
    from pynetdicom.sop_class import Verification

    entity = quiet_entity(options.ae_title, options.begin_seconds, options.idle_seconds)
    entity.add_supported_context(Verification)
    syntaxes = list(dict.fromkeys((*ALL_TRANSFER_SYNTAXES, *SYNTAXES)))  # pynetdicom leaves out retired ones
    for sop_class in storage_classes():
        entity.add_supported_context(sop_class, syntaxes)
    entity.require_called_aet = True
    entity.require_calling_aet = list(options.allowed)
    listener, lock = Listener(0), threading.Lock()

    def store(event: Any) -> int:
        status = stored(event, _keep)
        with lock:
            listener.counts["received" if status == SUCCESS else "refused"] += 1
        return status

    handlers = [
        (evt.EVT_C_STORE, store),
        (evt.EVT_CONN_OPEN, prepared),
        (evt.EVT_CONN_OPEN, Places(options.places_a_host, options.places)),
    ]
    landing.clear_unfinished()
    with streaming_to(landing):
        try:
            server = entity.start_server((options.host, options.port), block=False, evt_handlers=handlers)
        except OSError as fault:
            raise MetaDxError(
                "cannot_listen",
                f"Cannot listen on {options.host} port {options.port} ({fault.strerror}): "
                "choose another --port or --host, or end what uses it.",
            ) from fault
        listener.port = int(server.server_address[1])
        try:
            yield listener
        finally:
            server.shutdown()


def _keep(_: str, file: PartialFile) -> int:
    # The sender forgets the instance when it hears of success, so it must be on the disk by then. Of two versions
    # of one instance the one that came first counts, and ingest goes by the order of names.
    file.keep(f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.dcm", flush=True)
    return SUCCESS
