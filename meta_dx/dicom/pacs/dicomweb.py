"""DICOMweb archives: QIDO-RS lists, WADO-RS sends, every instance streamed to the disk and never parsed here.

``requests`` alone, not ``dicomweb-client``: that one decodes each instance with pydicom in the calling process,
repeats no request whose connection was lost, overlooks Retry-After and reads answers of any size into memory.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from meta_dx.dicom.pacs.address import DicomWebAddress
from meta_dx.dicom.pacs.archive import (
    INSTANCE_FIELDS,
    SERIES_FIELDS,
    STUDY_COUNTS,
    STUDY_IDENTITY,
    Attempt,
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
from meta_dx.dicom.pacs.credentials import Credentials
from meta_dx.dicom.pacs.dicomweb_service import FOR_NOW, DicomWebService, UnwellError, pieces
from meta_dx.dicom.pacs.landing import Landing, PartialFile, TooLargeError
from meta_dx.dicom.pacs.multipart import CutOffError, boundary_of, copy_parts
from meta_dx.dicom.pacs.options import PacsOptions
from meta_dx.home import storage_faults

_ANY_SYNTAX = 'multipart/related; type="application/dicom"; transfer-syntax=*'


class DicomWebArchive(DicomWebService):
    """One DICOMweb service.

    Parameters
    ----------
    address : DicomWebAddress
        The service, and what is wanted of it.
    options : PacsOptions
        Section ``[pacs]``.
    credentials : Credentials
        The login; sent to this server only.
    landing : Landing
        Where instances are written.

    Raises
    ------
    MetaDxError
        ``no_ca_file``.
    """

    def __init__(
        self, address: DicomWebAddress, options: PacsOptions, credentials: Credentials, landing: Landing
    ) -> None:
        super().__init__(address, options, credentials)
        self._landing = landing

    def studies(self) -> tuple[list[ListedStudy], int]:
        """List the studies that the filters let through, and count entries whose UID is none."""
        wanted = self._address.filters
        common = {"StudyDate": wanted.dates(), "StudyDescription": _plain(wanted.pattern())}
        found: dict[str, ListedStudy] = {}
        unusable = 0
        for modality in wanted.modalities or ("",):  # a list in one query is not understood everywhere
            fields = (*STUDY_IDENTITY, *STUDY_COUNTS, "StudyDescription")
            for entry in self._search("/studies", {**common, "ModalitiesInStudy": modality}, fields):
                study = listed_study(entry.value)
                if study is None:
                    unusable += 1
                elif wanted.takes_study(entry.value("StudyDate"), entry.value("StudyDescription")):
                    found[study.uid] = study
        return list(found.values()), unusable

    def instances(self, study: ListedStudy) -> Listing:
        """List the instances of one study."""
        wanted = self._address.filters
        unusable = missing = listed = 0
        found: dict[str, ListedInstance] = {}
        path = f"/studies/{study.uid}/series"
        modality = wanted.modalities[0] if len(wanted.modalities) == 1 else ""
        asked = {"Modality": modality, "BodyPartExamined": _plain(wanted.body_part)}
        for series in self._search(path, asked, SERIES_FIELDS):
            uid = series.value("SeriesInstanceUID")
            if not is_uid(uid):
                unusable += 1
                continue
            if not wanted.takes_series(series.value("Modality"), series.value("BodyPartExamined")):
                continue
            expected = counted(series.value("NumberOfSeriesRelatedInstances"))
            entries = list(self._search(f"{path}/{uid}/instances", {}, INSTANCE_FIELDS, expected))
            missing += max(0, (expected or 0) - len(entries))
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
        with ThreadPoolExecutor(self._options.connections, thread_name_prefix="pacs") as pool:
            yield from zip(
                wanted, pool.map(lambda instance: self._fetch(instance, land), wanted), strict=True
            )

    def _fetch(self, instance: ListedInstance, land: Land) -> FetchFailure | None:
        failure: FetchFailure | None = None
        for attempt in attempts(self._options):
            with storage_faults(self._landing.folder):
                file = self._landing.begin()
                try:
                    failure = self._copy(instance, file, attempt)
                    if failure is None:
                        land(instance, file)
                finally:
                    file.drop()
            if failure not in FOR_NOW:
                break
        return failure

    def _copy(self, instance: ListedInstance, file: PartialFile, attempt: Attempt) -> FetchFailure | None:
        path = f"/studies/{instance.study}/series/{instance.series}/instances/{instance.uid}"
        deadline = time.monotonic() + self._options.instance_seconds
        try:
            with self._answer(path, [], _ANY_SYNTAX) as answer:
                parts = _save(answer.headers.get("Content-Type", ""), pieces(answer, deadline), file)
        except UnwellError as fault:
            attempt.retry_after = fault.retry_after
            return fault.failure
        except CutOffError:
            return FetchFailure.CUT_OFF if file.size else FetchFailure.NOT_SENT
        except TooLargeError:
            return FetchFailure.TOO_LARGE
        if parts > 1:
            return FetchFailure.ANOTHER_SENT
        if not file.size:
            return FetchFailure.NOT_SENT
        return None if file.begins_like_dicom() else FetchFailure.NOT_DICOM


def _plain(pattern: str) -> str:
    """Write a pattern so that nothing in it needs an escape.

    Orthanc 1.10 takes ``%20`` for three letters; what matches too much then is sorted out here.
    """
    return re.sub(r"[^A-Za-z0-9_.~*-]", "?", pattern)


def _save(content_type: str, chunks: Iterable[bytes], file: PartialFile) -> int:
    """Write the first part of a body to a file; return how many parts there were."""
    boundary = boundary_of(content_type)
    if boundary is None:
        for chunk in chunks:
            file.write(chunk)
        return 1

    def write(part: int, data: bytes) -> None:
        if part == 0:
            file.write(data)

    return copy_parts(chunks, boundary, write)
