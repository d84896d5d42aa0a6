"""The table that says whose picture files those are and what they show, read and checked row by row.

Nothing is guessed: a value that cannot be what its column says is an error with its row and column, and all
rows are looked at before the first error is raised, so that it can say how many more there are. No message
quotes a cell: any of them may identify a patient.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import TypeVar

from meta_dx.errors import MetaDxError

REQUIRED = ("path", "patient", "diagnosis")
OPTIONAL = ("study", "age", "sex", "site", "date", "view", "modality", "code")
_DELIMITERS = ",;\t|"
_UNKNOWN = frozenset({"", "nan", "na", "n/a", "none", "null", "unknown", "unk"})
_SEXES = {"m": "M", "male": "M", "f": "F", "female": "F", "o": "O", "other": "O"}
_DATE = re.compile(r"(\d{4})([-/.]?)(\d{2})\2(\d{2})([T ][0-9:.]*)?")
_MODALITY = re.compile(r"[A-Z0-9 _]{1,16}")
_NO_PICTURES = frozenset({"SEG", "RTDOSE"})
_OLDEST = 130.0
_T = TypeVar("_T")


@dataclass(frozen=True)
class PictureRow:
    """One row of the table.

    Parameters
    ----------
    number : int
        Row as a spreadsheet counts it: the header is 1.
    path : Path
        The picture file.
    patient : str
        Patient number.
    study : str
        Name of the study within the table; ``""`` where the row is a study of its own.
    diagnosis, code : str
        What the picture shows, and its code; both ``""`` where nobody knows.
    age : int, optional
        Years.
    sex : str, optional
        ``M``, ``F`` or ``O``.
    site, view, modality : str, optional
        As DICOM code strings.
    day : date, optional
        Of the study.
    """

    number: int
    path: Path
    patient: str
    study: str
    diagnosis: str
    code: str
    age: int | None
    sex: str | None
    site: str | None
    view: str | None
    modality: str | None
    day: date | None


def row_fault(code: str, table: Path, number: int, column: str, what: str) -> MetaDxError:
    """Make the error for one cell."""
    return MetaDxError(code, f"{table}, row {number}, column {column}: {what}.")


def checked(items: Iterable[_T], check: Callable[[_T], None]) -> None:
    """Check all items and raise the first fault, with the number of those after it.

    Raises
    ------
    MetaDxError
        What ``check`` raised first.
    """
    faults = []
    for item in items:
        try:
            check(item)
        except MetaDxError as fault:
            faults.append(fault)
    if len(faults) > 1:
        message = f"{faults[0]} In all, {len(faults)} rows have a fault."
        raise MetaDxError(faults[0].code, message) from faults[0]
    if faults:
        raise faults[0]


def read_picture_table(table: Path) -> list[PictureRow]:
    """Read the table and check everything in it that can be checked without opening a picture.

    Parameters
    ----------
    table : Path
        CSV with the columns :data:`REQUIRED`, any of :data:`OPTIONAL`, and others, which are ignored. UTF-8 (with
        or without byte order mark), UTF-16 with one, or Windows-1252; comma, semicolon, tab or bar.

    Returns
    -------
    list of PictureRow
        In the order of the table; empty lines are left out but counted.

    Raises
    ------
    MetaDxError
        ``table_missing``, ``table_unreadable``, ``table_columns``, ``table_empty``, ``table_value``,
        ``picture_missing``, ``study_of_two_patients``, ``study_contradicts`` or ``code_of_two_diagnoses``.
    """
    rows: list[PictureRow] = []

    def read(numbered: tuple[int, dict[str, str]]) -> None:
        rows.append(_row(table, *numbered))

    checked(_cells(table), read)
    _require_consistent_studies(table, rows)
    _require_consistent_codes(table, rows)
    return rows


def _cells(table: Path) -> list[tuple[int, dict[str, str]]]:
    text = _text(table)
    first = text.lstrip().split("\n", 1)[0]
    lines = csv.reader(StringIO(text, newline=""), delimiter=max(_DELIMITERS, key=first.count), strict=True)
    try:
        rows = list(lines)
    except csv.Error as fault:
        raise MetaDxError(
            "table_unreadable", f"{table} is no CSV table (line {lines.line_num}): save it as CSV in UTF-8."
        ) from fault
    filled = [(number, row) for number, row in enumerate(rows, start=1) if any(cell.strip() for cell in row)]
    header = [cell.strip().lower() for cell in filled[0][1]] if filled else []
    missing = [column for column in REQUIRED if column not in header]
    twice = [column for column in (*REQUIRED, *OPTIONAL) if header.count(column) > 1]
    if missing or twice:
        what = f"no column {', '.join(missing)}" if missing else f"the column {', '.join(twice)} twice"
        raise MetaDxError(
            "table_columns",
            f"{table} has {what}: its first line must name {', '.join(REQUIRED)}, each once, "
            f"and may name {', '.join(OPTIONAL)}.",
        )
    if len(filled) == 1:
        raise MetaDxError("table_empty", f"{table} holds no row: add one line for each picture.")
    return [(number, _by_column(table, number, header, row)) for number, row in filled[1:]]


def _by_column(table: Path, number: int, header: list[str], row: list[str]) -> dict[str, str]:
    if any(cell.strip() for cell in row[len(header) :]):
        what = f"the row has {len(row)} cells, the header {len(header)}: put cells with a delimiter in quotes"
        raise row_fault("table_value", table, number, header[-1], what)
    padded = [*row, *[""] * (len(header) - len(row))]
    return {name: " ".join(cell.split()) for name, cell in zip(header, padded, strict=False)}


def _text(table: Path) -> str:
    try:
        data = table.read_bytes()
    except OSError as fault:
        raise MetaDxError(
            "table_missing", f"The table {table} cannot be read: check the name and permissions."
        ) from fault
    marked = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    for encoding in ("utf-16",) if marked else ("utf-8-sig", "cp1252"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise MetaDxError("table_unreadable", f"{table} is no text that can be read: save it as CSV in UTF-8.")


def _row(table: Path, number: int, cells: Mapping[str, str]) -> PictureRow:
    def wrong(column: str, what: str) -> MetaDxError:
        return row_fault("table_value", table, number, column, what)

    for column in ("path", "patient"):
        if not cells[column]:
            raise wrong(column, "the cell is empty")
    if len(cells["patient"]) > 64 or "\\" in cells["patient"] or not cells["patient"].isprintable():
        raise wrong("patient", "a patient number has at most 64 printable characters and no backslash")
    path = table.parent / cells["path"]
    if not path.is_file():
        what = f"there is no such file; paths are relative to {table.parent.resolve()}"
        raise row_fault("picture_missing", table, number, "path", what)
    diagnosis = cells["diagnosis"]
    if cells.get("code") and not diagnosis:
        raise wrong("diagnosis", "there is a code, but no diagnosis")
    return PictureRow(
        number=number,
        path=path,
        patient=cells["patient"],
        study=cells.get("study", ""),
        diagnosis=diagnosis,
        code=cells.get("code") or (code_of(diagnosis) if diagnosis else ""),
        age=_age(_known(cells, "age"), wrong),
        sex=_sex(_known(cells, "sex"), wrong),
        site=_code_string(_known(cells, "site")),
        view=_code_string(_known(cells, "view")),
        modality=_modality(_known(cells, "modality"), wrong),
        day=_day(_known(cells, "date"), wrong),
    )


def code_of(diagnosis: str) -> str:
    """Derive the code of a diagnosis from its words: their beginning, and a hash of all of them.

    Capitals, accents' encoding and blanks make no difference.

    Parameters
    ----------
    diagnosis : str
        The words.

    Returns
    -------
    str
        At most 16 characters, such as ``MELANOMA-4B1F1C``.
    """
    words = _folded(diagnosis)
    return f"{_ascii(words).replace(' ', '')[:9] or 'D'}-{sha256(words.encode()).hexdigest()[:6].upper()}"


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _ascii(text: str) -> str:
    """Return the letters and digits of a text in capitals, one blank for all else between them."""
    bare = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return " ".join(re.findall(r"[A-Z0-9]+", bare.upper()))


def _code_string(text: str | None) -> str | None:
    return _ascii(text or "")[:16].strip() or None


def _known(cells: Mapping[str, str], column: str) -> str | None:
    text = cells.get(column, "")
    return None if text.casefold() in _UNKNOWN else text


Wrong = Callable[[str, str], MetaDxError]


def _age(text: str | None, wrong: Wrong) -> int | None:
    if text is None:
        return None
    try:
        years = float(text)
    except ValueError:
        years = -1.0
    if not 0 <= years <= _OLDEST:
        raise wrong("age", "an age is a number of years from 0 to 130, or empty")
    return int(years)


def _sex(text: str | None, wrong: Wrong) -> str | None:
    if text is None:
        return None
    if text.casefold() not in _SEXES:
        raise wrong("sex", "the sex is M, F, O, male, female or other, or empty")
    return _SEXES[text.casefold()]


def _modality(text: str | None, wrong: Wrong) -> str | None:
    modality = None if text is None else text.upper()
    if modality is not None and (not _MODALITY.fullmatch(modality) or modality in _NO_PICTURES):
        raise wrong("modality", "this is no DICOM modality of a picture, such as XC, ES, DX or CR")
    return modality


def _day(text: str | None, wrong: Wrong) -> date | None:
    if text is None:
        return None
    match = _DATE.fullmatch(text)
    try:
        if match:
            return date(int(match[1]), int(match[3]), int(match[4]))
    except ValueError:
        pass  # 30 February
    raise wrong("date", "a date is written year-month-day (2024-05-31), or empty")


def _require_consistent_studies(table: Path, rows: list[PictureRow]) -> None:
    """Refuse a study of two patients, and one whose rows give two ages, sexes or dates."""
    first: dict[tuple[str, str], tuple[object, int]] = {}

    def check(row: PictureRow) -> None:
        for column, value in (
            ("patient", row.patient),
            ("age", row.age),
            ("sex", row.sex),
            ("date", row.day),
        ):
            if not row.study or value is None:
                continue
            known, number = first.setdefault((row.study, column), (value, row.number))
            if known != value and column == "patient":
                what = f"the study belongs to another patient in row {number}"
                raise row_fault("study_of_two_patients", table, row.number, column, what)
            if known != value:
                what = f"row {number} of the same study says something else; each visit is a study of its own"
                raise row_fault("study_contradicts", table, row.number, column, what)

    checked(rows, check)


def _require_consistent_codes(table: Path, rows: list[PictureRow]) -> None:
    """Refuse one code for two diagnoses. Several codes for the same words are two diseases to us."""
    first: dict[str, tuple[str, int]] = {}

    def check(row: PictureRow) -> None:
        words = _folded(row.diagnosis)
        known, number = first.setdefault(row.code, (words, row.number))
        if row.code and known != words:
            what = f"the code stands for another diagnosis in row {number}; a disease is known by its code"
            raise row_fault("code_of_two_diagnoses", table, row.number, "code", what)

    checked(rows, check)
