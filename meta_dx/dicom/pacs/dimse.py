"""DIMSE archives: C-FIND lists; C-GET, or C-MOVE to a listener of our own, sends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from meta_dx.dicom.pacs.address import DimseAddress
from meta_dx.dicom.pacs.archive import (
    INSTANCE_FIELDS,
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
    counted,
    is_uid,
    listed_instance,
    listed_study,
)
from meta_dx.dicom.pacs.connections import Places, prepared
from meta_dx.dicom.pacs.dimse_requests import SYNTAXES, portions, requests_for
from meta_dx.dicom.pacs.dimse_service import DimseService
from meta_dx.dicom.pacs.landing import Landing, PartialFile
from meta_dx.dicom.pacs.options import PacsOptions
from meta_dx.dicom.pacs.store import (
    CANNOT_UNDERSTAND,
    OUT_OF_RESOURCES,
    SUCCESS,
    quiet_entity,
    storage_classes,
    stored,
    streaming_to,
)
from meta_dx.errors import MetaDxError
from meta_dx.home import storage_faults

_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
_GET = "1.2.840.10008.5.1.4.1.2.2.3"
_PLACES = 8, 20  # connections of one host and of all: an archive sends over one or a few


class DimseArchive(DimseService):
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
        super().__init__(address, options)
        self._landing = landing

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
        unusable = missing = listed = 0
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
                entries = self._find("IMAGE", {**one, "SeriesInstanceUID": uid, **fields})
                missing += max(
                    0, (counted(series.value("NumberOfSeriesRelatedInstances")) or 0) - len(entries)
                )
                for entry in entries:
                    instance = listed_instance(study, uid, entry.value)
                    if instance is None:
                        unusable += 1
                    else:
                        found[instance.uid] = instance
                listed += len(entries)
                self._require_bounded(listed)
        return Listing(tuple(found.values()), unusable, missing)

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

    def _transfer(self, wanted: list[ListedInstance], arrivals: _Arrivals) -> FetchFailure:
        """Ask for instances once; return what is the matter with those that do not arrive."""
        move = bool(self._address.move_to)
        model = _MOVE if move else _GET
        failure = FetchFailure.NOT_SENT
        with streaming_to(self._landing), self._listener(arrivals) if move else nullcontext():
            for classes, part in portions(wanted, move):
                contexts: list[tuple[str, str | None]] = [(model, None), *classes]
                try:
                    association = self._associate(contexts, None if move else arrivals.store)
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
        handlers = [
            (evt.EVT_C_STORE, arrivals.store),
            (evt.EVT_CONN_OPEN, prepared),
            (evt.EVT_CONN_OPEN, Places(*_PLACES)),
        ]
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
