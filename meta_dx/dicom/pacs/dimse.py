"""DIMSE archives: C-FIND lists; C-GET, or C-MOVE to a listener of our own, sends."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from meta_dx.dicom.pacs.address import DimseAddress
from meta_dx.dicom.pacs.archive import (
    INSTANCE_FIELDS,
    MOST_MATCHES,
    SERIES_FIELDS,
    STUDY_COUNTS,
    STUDY_IDENTITY,
    FetchFailure,
    Land,
    ListedInstance,
    ListedStudy,
    Listing,
    Outcome,
    attempts,
    is_uid,
    listed_instance,
    listed_study,
)
from meta_dx.dicom.pacs.dimse_requests import SYNTAXES, Match, portions, query_of, requests_for
from meta_dx.dicom.pacs.landing import Landing, PartialFile
from meta_dx.dicom.pacs.options import PacsOptions
from meta_dx.dicom.pacs.store import (
    CANNOT_UNDERSTAND,
    OUT_OF_RESOURCES,
    SUCCESS,
    prepared,
    quiet_entity,
    storage_classes,
    stored,
    streaming_to,
)
from meta_dx.errors import MetaDxError
from meta_dx.home import storage_faults

_FIND = "1.2.840.10008.5.1.4.1.2.2.1"  # study root
_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
_GET = "1.2.840.10008.5.1.4.1.2.2.3"
_PENDING = (0xFF00, 0xFF01)


class DimseArchive:
    """One DIMSE archive.

    Parameters
    ----------
    address : DimseAddress
        The archive, and what is wanted of it.
    options : PacsOptions
        Section ``[pacs]``.
    landing : Landing
        Where instances are written.
    """

    def __init__(self, address: DimseAddress, options: PacsOptions, landing: Landing) -> None:
        self._address, self._options, self._landing = address, options, landing
        self._association: Any = None

    def studies(self) -> tuple[list[ListedStudy], int]:
        """List the studies that the filters let through, and count entries whose UID is none."""
        wanted = self._address.filters
        found: dict[str, ListedStudy] = {}
        unusable = 0
        for modality in wanted.modalities or ("",):
            keys = dict.fromkeys(("StudyInstanceUID", *STUDY_IDENTITY, *STUDY_COUNTS), "")
            keys |= {
                "StudyDate": wanted.dates(),
                "StudyDescription": wanted.pattern(),
                "ModalitiesInStudy": modality,
            }
            for entry in self._find("STUDY", keys):
                study = listed_study(entry.value)
                if study is None:
                    unusable += 1
                elif wanted.takes_study(entry.value("StudyDate"), entry.value("StudyDescription")):
                    found[study.uid] = study
        return list(found.values()), unusable

    def instances(self, study: ListedStudy) -> Listing:
        """List the instances of one study."""
        wanted = self._address.filters
        found: dict[str, ListedInstance] = {}
        unusable = 0
        one = {"StudyInstanceUID": study.uid}
        keys = {**one, **dict.fromkeys(("SeriesInstanceUID", *SERIES_FIELDS), "")}
        keys |= {"Modality": wanted.modalities[0] if len(wanted.modalities) == 1 else ""}
        keys |= {"BodyPartExamined": wanted.body_part}
        for series in self._find("SERIES", keys):
            uid = series.value("SeriesInstanceUID")
            if not is_uid(uid):
                unusable += 1
            elif wanted.takes_series(series.value("Modality"), series.value("BodyPartExamined")):
                fields = dict.fromkeys(("SOPInstanceUID", *INSTANCE_FIELDS), "")
                for entry in self._find("IMAGE", {**one, "SeriesInstanceUID": uid, **fields}):
                    instance = listed_instance(study, uid, entry.value)
                    if instance is None:
                        unusable += 1
                    else:
                        found[instance.uid] = instance
        return Listing(tuple(found.values()), unusable)

    def retrieve(self, wanted: Sequence[ListedInstance], land: Land) -> Iterator[Outcome]:
        """Fetch instances of one study; each comes out once, landed or with what went wrong."""
        left = {instance.uid: instance for instance in wanted}
        reasons: dict[str, FetchFailure] = {}
        for _ in attempts(self._options):
            arrivals = _Arrivals(left, land)
            failure = self._transfer(list(left.values()), arrivals)
            for uid in arrivals.landed:
                yield left.pop(uid), None
            if arrivals.fault is not None:
                with storage_faults(self._landing.folder):
                    raise arrivals.fault
            for uid in [uid for uid in arrivals.refused if uid in left]:
                yield left.pop(uid), arrivals.refused[uid]
            reasons |= dict.fromkeys(left, failure)
            if not left or failure is FetchFailure.REFUSED:
                break
        yield from ((instance, reasons[uid]) for uid, instance in left.items())

    def close(self) -> None:
        """End the association."""
        if self._association is not None and self._association.is_established:
            self._association.release()
        self._association = None

    def _find(self, level: str, keys: dict[str, str]) -> list[Match]:
        """Ask, and ask again where the association breaks; what was asked for is asked for whole."""
        for attempt in attempts(self._options):
            try:
                if self._association is None or not self._association.is_established:
                    self._association = self._associate([(_FIND, None)])
                return self._matches(level, keys)
            except MetaDxError as fault:
                self._association = None
                if attempt.last or fault.code not in ("pacs_unreachable", "pacs_broke_off"):
                    raise
        raise RuntimeError("there is at least one attempt")

    def _matches(self, level: str, keys: dict[str, str]) -> list[Match]:
        found = []
        for status, identifier in self._association.send_c_find(query_of(level, keys), _FIND):
            code = status.get("Status")
            if code is None:
                raise self._error("pacs_broke_off", "broke off in the middle of its answer: try again later")
            if code in _PENDING and identifier is not None:
                found.append(Match(identifier))
                if len(found) > MOST_MATCHES:
                    self._association.abort()
                    raise self._error(
                        "pacs_paging", "lists more than a million matches: narrow the filters down"
                    )
            elif code not in (*_PENDING, SUCCESS):
                raise self._error(
                    "pacs_refused", f"refuses the query (status {code:#06x}): check the filters"
                )
        return found

    def _transfer(self, wanted: list[ListedInstance], arrivals: _Arrivals) -> FetchFailure:
        """Ask for instances once; return what is the matter with those that do not arrive."""
        move = bool(self._address.move_to)
        model = _MOVE if move else _GET
        failure = FetchFailure.NOT_SENT
        with streaming_to(self._landing), self._listener(arrivals) if move else nullcontext():
            for classes, part in portions(wanted, move):
                contexts: list[tuple[str, str | None]] = [(model, None), *classes]
                try:
                    association = self._associate(contexts, None if move else arrivals)
                except MetaDxError as fault:
                    if fault.code != "pacs_unreachable":
                        raise
                    return FetchFailure.UNAVAILABLE
                try:
                    for query in requests_for(part):
                        if not move:
                            answers = association.send_c_get(query, model)
                        else:
                            answers = association.send_c_move(query, self._address.move_to, model)
                        failure = _worst(
                            failure, self._conclusion([status.get("Status") for status, _ in answers])
                        )
                        if not association.is_established or arrivals.fault is not None:
                            break
                finally:
                    if association.is_established:
                        association.release()
        return failure

    def _conclusion(self, codes: list[int | None]) -> FetchFailure:
        last = codes[-1] if codes else None
        if last is None:
            return FetchFailure.CUT_OFF
        if last == 0xA801:
            raise self._error(
                "pacs_unknown_destination",
                f"does not know the listener {self._address.move_to}: have its title, our address and port "
                f"{self._options.listen_port} entered there, or leave move_to out to use C-GET",
            )
        if last & 0xFF00 == 0xA700 or last in (0xB000, SUCCESS):  # out of resources, or not everything
            return FetchFailure.NOT_SENT
        return FetchFailure.REFUSED

    @contextmanager
    def _listener(self, arrivals: _Arrivals) -> Iterator[None]:
        """Listen while a C-MOVE is under way, to nobody but what it was asked for."""
        from pynetdicom import evt

        options = self._options
        entity = quiet_entity(self._address.move_to, options.connect_seconds, options.read_seconds)
        for sop_class in storage_classes():
            entity.add_supported_context(sop_class, list(SYNTAXES))
        entity.require_called_aet = True
        entity.require_calling_aet = [self._address.ae_title]
        handlers = [(evt.EVT_C_STORE, arrivals.store), (evt.EVT_CONN_OPEN, prepared)]
        place = (options.listen_host, options.listen_port)
        try:
            server = entity.start_server(place, block=False, evt_handlers=handlers)
        except OSError as fault:
            raise MetaDxError(
                "cannot_listen",
                f"Cannot listen on {place[0]} port {place[1]} ({fault.strerror}): choose another [pacs] listen_port, "
                "or end what uses it.",
            ) from fault
        try:
            yield
        finally:
            server.shutdown()

    def _associate(self, contexts: list[tuple[str, str | None]], arrivals: _Arrivals | None = None) -> Any:
        from pynetdicom import build_role, evt

        entity = quiet_entity(
            self._options.ae_title, self._options.connect_seconds, self._options.read_seconds
        )
        for abstract, syntax in contexts:
            entity.add_requested_context(abstract, *([syntax] if syntax else []))
        storage = {abstract for abstract, syntax in contexts if syntax}
        handlers: list[Any] = [(evt.EVT_CONN_OPEN, prepared)]
        if arrivals is not None:
            handlers.append((evt.EVT_C_STORE, arrivals.store))
        association = entity.associate(
            self._address.host,
            self._address.port,
            ae_title=self._address.ae_title,
            ext_neg=[build_role(abstract, scp_role=True) for abstract in sorted(storage)] or None,
            evt_handlers=handlers,
            tls_args=self._tls(),
        )
        if not association.is_established:
            raise self._not_established(association)
        if contexts[0][0] not in {context.abstract_syntax for context in association.accepted_contexts}:
            association.release()
            raise self._error(
                "pacs_refused",
                "does not offer this service to us: have query and retrieve allowed for our AE title",
            )
        return association

    def _not_established(self, association: Any) -> MetaDxError:
        answer = association.acceptor.primitive
        if association.is_rejected:
            reasons: dict[tuple[object, object], str] = {
                (1, 3): f"does not know us as {self._options.ae_title}: have this AE title entered there, "
                "or set [pacs] ae_title",
                (1, 7): f"is not called {self._address.ae_title}: check the AE title in the address",
            }
            reason = (getattr(answer, "result_source", None), getattr(answer, "diagnostic", None))
            refused = (
                f"refuses the association: check its AE title ({self._address.ae_title}) and ours "
                f"({self._options.ae_title}), and whether it allows us in"
            )
            return self._error("pacs_refused", reasons.get(reason, refused))
        what = "cannot be reached, or does not speak DICOM there: check host and port, or try again later"
        if self._address.tls:
            what = "cannot be reached with TLS: check host, port and [pacs] ca_file, or try again later"
        return self._error("pacs_unreachable", what)

    def _tls(self) -> tuple[ssl.SSLContext, str] | None:
        if not self._address.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self._options.ca_file or None)
        except OSError as fault:
            raise MetaDxError(
                "no_ca_file",
                f"[pacs] ca_file {self._options.ca_file} cannot be used: name certificates (PEM).",
            ) from fault
        return context, self._address.host

    def _error(self, code: str, what: str) -> MetaDxError:
        return MetaDxError(code, f"The archive {self._address.host}:{self._address.port} {what}.")


class _Arrivals:
    """What arrives of what was asked for; anything else is turned away."""

    def __init__(self, expected: dict[str, ListedInstance], land: Land) -> None:
        self._expected = dict(expected)
        self._land = land
        self.landed: list[str] = []
        self.refused: dict[str, FetchFailure] = {}
        self.fault: OSError | None = None

    def store(self, event: Any) -> int:
        """Answer one C-STORE request."""
        status = stored(event, self._keep)
        if status == OUT_OF_RESOURCES:
            fault = getattr(event.request._dataset_file, "fault", None)
            if isinstance(fault, OSError):
                self.fault = fault
            else:
                self.refused[str(event.request.AffectedSOPInstanceUID)] = FetchFailure.TOO_LARGE
        return status

    def _keep(self, uid: str, file: PartialFile) -> int:
        instance = self._expected.pop(uid, None)
        if instance is None:
            return CANNOT_UNDERSTAND
        self._land(instance, file)
        self.landed.append(uid)
        return SUCCESS


def _worst(first: FetchFailure, second: FetchFailure) -> FetchFailure:
    order = (FetchFailure.NOT_SENT, FetchFailure.REFUSED, FetchFailure.CUT_OFF, FetchFailure.UNAVAILABLE)
    return max(first, second, key=order.index)
