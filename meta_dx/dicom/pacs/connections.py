"""What a peer may do to a DIMSE connection: how long it may take, how much it may send, how many it may hold.

pynetdicom waits without end for the rest of a PDU that comes byte by byte, reads one whole of whatever length it
announces, gathers a message of any number of PDUs in memory, and gives its places to whoever comes first.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import defaultdict
from contextlib import suppress
from typing import Any
from weakref import WeakSet, proxy

_LARGEST_PDU = 1 << 20  # a request for an association names classes without regard to what we announce
_LARGEST_MESSAGE = 1 << 20  # without what goes to a file; a command or the answer to a query has kilobytes
_PIECE = 1 << 16
_BROKEN = "Evt19"  # of the state machine (PS3.8, 9.2): ends the association

log = logging.getLogger("meta_dx")


def prepared(event: Any) -> None:
    """Prepare a new connection, a handler of pynetdicom: nothing waits in it, and the peer keeps to limits."""
    connection = event.assoc.dul.socket
    if connection is None or connection.socket is None:
        return
    # Each answer would wait 40 ms for the one before.
    connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.recv = _Receive(connection.socket, event.assoc)
    measure(event.assoc)
    if event.assoc.is_requestor:
        _leave_answers(event.assoc)


def measure(association: Any) -> Measured:
    """Count what an association holds in memory, and end it when that is too much; once for each association."""
    found = getattr(association, "measured", None)
    if found is None:
        found = association.measured = Measured(association)
    return found


def _leave_answers(association: Any) -> None:
    """Keep the reactor of an association that asks from taking the answers.

    A request asks pynetdicom's reactor thread to pause and looks whether it has; on a busy machine it sees that the
    reactor *was* pausing, and the reactor, woken up late, takes one answer and drops it as unexpected. Whoever waits
    for an answer takes it with ``block=True``, and so do the images of a C-GET come; the reactor is the only one that
    does not wait.
    """
    take = association.dimse.get_msg

    def get_msg(block: bool = False) -> tuple[Any, Any]:
        return take(block=True) if block else (None, None)

    association.dimse.get_msg = get_msg


class Measured:
    """Counts what the peer of an association sends that goes into memory, not to a file.

    Parameters
    ----------
    association : pynetdicom.association.Association
        The association, not yet negotiated.

    Attributes
    ----------
    most : int, optional
        Bytes of data sets from the last :meth:`begin` on; no limit where None.
    exceeded : bool
        The association was ended for it.
    """

    def __init__(self, association: Any) -> None:
        self._dimse, self._events = association.dimse, association.dul.event_queue
        self._asking = association.is_requestor
        self._receive = self._dimse.receive_primitive
        self._dimse.receive_primitive = self._received
        self._so_far = 0
        self.most: int | None = None
        self.exceeded = False

    def begin(self, most: int) -> None:
        """Count anew, up to so many bytes."""
        self._so_far, self.most = 0, most

    def _received(self, primitive: Any) -> None:
        self._so_far += sum(len(data) for _, data in primitive.presentation_data_value_list)
        self._receive(primitive)
        message = self._dimse.message
        held = 0 if message is None else message.encoded_command_set.tell() + message.data_set.tell()
        if held > _LARGEST_MESSAGE or (self.most is not None and self._so_far > self.most):
            self._end()

    def _end(self) -> None:
        if self.exceeded:
            return
        self.exceeded = True
        if self._asking:
            # Whoever waits for an answer hears that none comes, and aborts.
            self._dimse.msg_queue.put((None, None))
        else:
            self._events.put(_BROKEN)


class Places:
    """Sees to it that no host holds all associations of a listener, a handler of pynetdicom.

    Titles can be chosen freely, so what counts is the address of the host. pynetdicom's own limit would also count
    connections that are being closed, and a host that opens one after the other would keep all others out.

    Parameters
    ----------
    a_host : int
        Connections that one host may have at the same time.
    in_all : int
        Those of all hosts.
    """

    def __init__(self, a_host: int, in_all: int) -> None:
        self._a_host, self._in_all, self._lock = a_host, in_all, threading.Lock()
        # Nothing of an association that broke off is to stay: with it goes the file that it had begun.
        self._held: dict[str, WeakSet[Any]] = defaultdict(WeakSet)
        self._told: set[str] = set()

    def __call__(self, event: Any) -> None:
        """Take a new connection in, or close it."""
        host, association = str(event.address[0]), event.assoc
        with self._lock:
            # One that has no thread yet is about to start.
            held = {
                name: sum(one.ident is None or one.is_alive() for one in some)
                for name, some in self._held.items()
            }
            if held.get(host, 0) < self._a_host and sum(held.values()) < self._in_all:
                self._held[host].add(association)
                return
            for name in [name for name, count in held.items() if not count]:
                del self._held[name]
            known = host in self._told
            if len(self._told) < 1000:
                self._told.add(host)
        _shut(association.dul.socket.socket)
        if not known:
            log.warning(
                "A host wants more connections than it may have (%d, %d of all hosts): they are closed (told once "
                "for each host).",
                self._a_host,
                self._in_all,
            )


class _Receive:
    """Stands for the ``recv`` of pynetdicom's socket: as many bytes as asked for, all of them within a time."""

    def __init__(self, connection: socket.socket, association: Any) -> None:
        self._connection, self._association = connection, proxy(association)

    def __call__(self, size: int) -> bytearray:
        """Return so many bytes, or fewer from a connection that broke off or is broken off here."""
        received = bytearray()
        if size > _LARGEST_PDU:
            _shut(self._connection)
            return received
        begun = self._association.is_established
        seconds = self._association.network_timeout if begun else self._association.acse_timeout
        until = time.monotonic() + seconds
        try:
            while len(received) < size and (left := until - time.monotonic()) > 0:
                self._connection.settimeout(left)  # by itself it counts from byte to byte
                piece = self._connection.recv(min(_PIECE, size - len(received)))
                if not piece:
                    return received
                received += piece
            self._connection.settimeout(seconds)
        except TimeoutError:
            pass
        if len(received) < size:
            _shut(self._connection)
        return received


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
