"""What is asked of a DIMSE archive, and how its answers are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from meta_dx.dicom.pacs.archive import ListedInstance

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_UIDS_AT_ONCE = 100  # 64 characters each: within what a value of DICOM may hold
_CONTEXTS = 126  # an association has 128, two are for query and retrieve
# All that ingest decodes. Each syntax gets a context of its own: in a common one the archive would choose a single
# syntax for all. Those that an archive can do without, since it has to offer the first two, stand last.
SYNTAXES = (
    "1.2.840.10008.1.2.1",  # explicit little endian
    "1.2.840.10008.1.2",  # implicit little endian
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.70",  # JPEG lossless
    "1.2.840.10008.1.2.5",  # RLE
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.50",  # JPEG baseline
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.51",  # JPEG extended
    "1.2.840.10008.1.2.4.57",  # JPEG lossless, any predictor
    "1.2.840.10008.1.2.4.81",  # JPEG-LS near lossless
    "1.2.840.10008.1.2.4.201",  # HTJ2K lossless
    "1.2.840.10008.1.2.4.202",  # HTJ2K lossless, by resolution
    "1.2.840.10008.1.2.4.203",  # HTJ2K
    "1.2.840.10008.1.2.4.53",  # JPEG, spectral selection (retired)
    "1.2.840.10008.1.2.4.55",  # JPEG, full progression (retired)
    "1.2.840.10008.1.2.1.99",  # deflated
    "1.2.840.10008.1.2.2",  # explicit big endian
)
# Asked for where the archive does not say of which classes a study is.
_USUAL_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.1",  # computed radiography
    "1.2.840.10008.5.1.4.1.1.1.1",  # digital X-ray
    "1.2.840.10008.5.1.4.1.1.1.2",  # mammography
    "1.2.840.10008.5.1.4.1.1.2",  # CT
    "1.2.840.10008.5.1.4.1.1.4",  # MR
    "1.2.840.10008.5.1.4.1.1.6.1",  # ultrasound
    "1.2.840.10008.5.1.4.1.1.7",  # secondary capture
    "1.2.840.10008.5.1.4.1.1.77.1.4",  # photography
)


class Match:
    """One answer of C-FIND: the values of what was asked for, and nothing else that was sent.

    Parameters
    ----------
    dataset : Dataset
        The answer.
    keywords : iterable of str
        What was asked for.
    """

    def __init__(self, dataset: Dataset, keywords: Iterable[str]) -> None:
        self._values = {keyword: _text(dataset, keyword) for keyword in keywords}

    def value(self, keyword: str) -> str:
        """Return a value as text, several joined as DICOM does, empty where there is none or nonsense."""
        return self._values[keyword]


def _text(dataset: Dataset, keyword: str) -> str:
    from pydicom import config

    try:
        with config.disable_value_validation():  # its warnings repeat the value
            value = dataset.get(keyword, "")
    except Exception:  # pydicom decodes a value when it is asked for, and a server can send anything
        return ""
    if value is None or value == "":
        return ""
    several = value if isinstance(value, list | tuple) or type(value).__name__ == "MultiValue" else [value]
    return "\\".join(str(one) for one in several)[:1024]


def query_of(level: str, keys: dict[str, str | list[str]] | dict[str, str]) -> Dataset:
    """Write keys as an identifier."""
    from pydicom import config
    from pydicom.datadict import dictionary_VR
    from pydicom.dataset import Dataset

    query = Dataset()
    query.QueryRetrieveLevel = level
    if any(not str(value).isascii() for value in keys.values()):
        query.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in keys.items():
        numeric = dictionary_VR(keyword) in ("IS", "US", "US or SS")
        with config.disable_value_validation():  # wildcards are no values
            setattr(query, keyword, None if numeric else value)
    return query


def portions(
    wanted: list[ListedInstance], move: bool
) -> Iterator[tuple[list[tuple[str, str]], list[ListedInstance]]]:
    """Divide instances so that the classes of each portion fit into one association; C-MOVE needs none."""
    if move:
        yield [], wanted
        return
    named = sorted({instance.sop_class for instance in wanted if instance.sop_class})
    unnamed = [instance for instance in wanted if not instance.sop_class]
    at_once = _CONTEXTS // len(SYNTAXES)
    for start in range(0, len(named), at_once):
        classes = named[start : start + at_once]
        part = [instance for instance in wanted if instance.sop_class in classes]
        yield [(one, syntax) for one in classes for syntax in SYNTAXES], part
    if unnamed:
        usual = [(one, syntax) for syntax in SYNTAXES for one in _USUAL_CLASSES]
        yield usual[:_CONTEXTS], unnamed


def requests_for(wanted: list[ListedInstance]) -> Iterator[Dataset]:
    """Ask for instances by name: for a whole series the archive might send what the home has already."""
    by_series: dict[str, list[ListedInstance]] = {}
    for instance in wanted:
        by_series.setdefault(instance.series, []).append(instance)
    for series, members in by_series.items():
        for start in range(0, len(members), _UIDS_AT_ONCE):
            uids = [instance.uid for instance in members[start : start + _UIDS_AT_ONCE]]
            place = {"StudyInstanceUID": members[0].study, "SeriesInstanceUID": series}
            yield query_of("IMAGE", {**place, "SOPInstanceUID": uids if len(uids) > 1 else uids[0]})
