"""The diagnosis table: which study shows which disease, under surrogate identities.

Read from a CSV file with the columns ``study_instance_uid, patient_id, accession_number, code, coding_scheme,
meaning`` and, where known, ``basis, diagnosed_on, valid_from, superseded_by``. The CSV is the whole truth:
each import replaces the one before, which stays readable as an older version.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date
from io import StringIO
from pathlib import Path

import pandas as pd

from meta_dx.cohort.tables import frame_of, parquet_bytes, read_tables
from meta_dx.dicom.identity import NamedPatient, Surrogates, clean
from meta_dx.errors import MetaDxError
from meta_dx.home import Home, write_bytes, write_json
from meta_dx.records.vault import Vault

REQUIRED = ("study_instance_uid", "patient_id", "accession_number", "code", "coding_scheme", "meaning")
OPTIONAL = ("basis", "diagnosed_on", "valid_from", "superseded_by")
ISSUER = "issuer_of_patient_id"
_DELIMITERS = ",;\t|"
_CURRENT = "current.json"


@dataclass(frozen=True)
class DiagnosisSummary:
    """What an import of diagnoses found.

    Parameters
    ----------
    version : str
        Name of the stored table.
    rows : int
        Diagnoses kept.
    active : int
        Those that hold: not superseded.
    studies, diseases : int
        Distinct studies and codes among those that hold.
    unknown_studies : int
        Studies of the table that the home does not hold. Their rows are kept: the study may come later.
    undiagnosed_studies : int
        Studies of the home that the table does not name. They are what can be predicted.
    problems : dict of str to int
        Rows by what is wrong with them. Left out: ``without_study``, ``without_code``, ``repeated``. Kept:
        ``without_patient``, ``another_patient`` (the study is another patient's), ``unreadable_date`` (the
        date alone is dropped), ``odd_length`` (more or fewer fields than the header).
    """

    version: str
    rows: int
    active: int
    studies: int
    diseases: int
    unknown_studies: int
    undiagnosed_studies: int
    problems: dict[str, int] = field(default_factory=dict)


def import_diagnoses(home: Home, csv_file: Path | str) -> DiagnosisSummary:
    """Read a table of diagnoses and make it the current one.

    Parameters
    ----------
    home : Home
        The home; its studies should be there already.
    csv_file : Path or str
        UTF-8 (with or without byte order mark), UTF-16 with one, or Windows-1252; comma, semicolon, tab or
        bar between the fields.

    Returns
    -------
    DiagnosisSummary

    Raises
    ------
    MetaDxError
        ``diagnoses_missing``, ``diagnoses_unreadable``, ``diagnoses_columns``, ``diagnoses_empty``,
        ``diagnoses_of_other_studies``, or a storage fault. The table before stays current.
    """
    path = Path(csv_file)
    problems: Counter[str] = Counter()
    records = _records(path, problems)
    with closing(Vault.open(home)) as vault:
        surrogates, studies = Surrogates(vault.key), _known_studies(home)
        rows = _translated(records, surrogates, studies, vault, problems)
        _require_match(path, rows, studies)
        # Whoever is told that a study of the table has not arrived wants to know which.
        named = {record["study_instance_uid"] for record in records} - {""}
        with vault.transaction():
            vault.remember("study", {surrogates.uid(study): study for study in named})
    data = parquet_bytes("diagnoses", frame_of("diagnoses", rows))
    version = hashlib.sha256(data).hexdigest()[:16]
    folder = home.store("diagnoses")
    if not (folder / f"{version}.parquet").exists():
        write_bytes(folder / f"{version}.parquet", data)
    write_json(folder / _CURRENT, {"version": version, "rows": len(rows)})
    active = active_diagnoses(home)
    diagnosed = set(active["study"])
    return DiagnosisSummary(
        version=version,
        rows=len(rows),
        active=len(active),
        studies=len(diagnosed),
        diseases=active["code"].nunique(),
        unknown_studies=len({row["study"] for row in rows} - set(studies)),
        undiagnosed_studies=len(set(studies) - diagnosed),
        problems=dict(sorted(problems.items())),
    )


def require_table(csv_file: Path | str) -> None:
    """Refuse a table that :func:`import_diagnoses` could not read, before hours of other work.

    Raises
    ------
    MetaDxError
        ``diagnoses_missing``, ``diagnoses_unreadable``, ``diagnoses_columns`` or ``diagnoses_empty``.
    """
    _records(Path(csv_file), Counter())


def active_diagnoses(home: Home) -> pd.DataFrame:
    """Return the diagnoses that hold: the current table without what has been superseded.

    Parameters
    ----------
    home : Home
        The home.

    Returns
    -------
    DataFrame
        Columns of :data:`meta_dx.cohort.tables.DIAGNOSES`, sorted by study and code; empty where no table has
        been imported.
    """
    table = all_diagnoses(home)
    return table[table["superseded_by"].isna()].reset_index(drop=True)


def all_diagnoses(home: Home) -> pd.DataFrame:
    """Return the current table, with the diagnoses that have been superseded."""
    version = diagnoses_version(home)
    files = [home.store("diagnoses") / f"{version}.parquet"] if version else []
    return read_tables("diagnoses", files)


def diagnoses_version(home: Home) -> str | None:
    """Return the name of the current table, ``None`` where none has been imported."""
    current = home.store("diagnoses") / _CURRENT
    return str(json.loads(current.read_text())["version"]) if current.exists() else None


def _records(path: Path, problems: Counter[str]) -> list[dict[str, str]]:
    """Read the CSV into one dictionary a row; keys are the lower-case column names."""
    text = _text(path)
    lines = csv.reader(StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    try:
        rows = [row for row in lines if any(cell.strip() for cell in row)]
    except csv.Error as fault:
        raise MetaDxError(
            "diagnoses_unreadable",
            f"{path} is no CSV table (line {lines.line_num}): save it as CSV in UTF-8.",
        ) from fault
    header = ["_".join(cell.strip().lower().split()) for cell in rows[0]] if rows else []
    missing = [column for column in REQUIRED if column not in header]
    if missing:
        raise MetaDxError(
            "diagnoses_columns",
            f"{path} has no column {', '.join(missing)}: its first line must name {', '.join(REQUIRED)}.",
        )
    records = []
    for row in rows[1:]:
        problems["odd_length"] += len(row) != len(header)
        padded = [*row, *[""] * (len(header) - len(row))]
        records.append({name: clean(cell) for name, cell in zip(header, padded, strict=False)})
    problems += Counter()  # drop what was counted zero times
    if not records:
        raise MetaDxError("diagnoses_empty", f"{path} holds no diagnosis: add one line for each diagnosis.")
    return records


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as fault:
        raise MetaDxError(
            "diagnoses_missing",
            f"The table of diagnoses {path} cannot be read: check the name and permissions.",
        ) from fault
    marked = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    for encoding in ("utf-16",) if marked else ("utf-8-sig", "cp1252"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise MetaDxError("diagnoses_unreadable", f"{path} is no text that can be read: save it as CSV in UTF-8.")


def _delimiter(text: str) -> str:
    header = text.lstrip().split("\n", 1)[0]
    return max(_DELIMITERS, key=header.count)


def _known_studies(home: Home) -> dict[str, str]:
    """Return the studies of the home, each with its patient."""
    files = sorted(home.catalog.glob("b*/instances.parquet"))
    known = read_tables("instances", files, ["study", "patient"])
    return dict(zip(known["study"], known["patient"], strict=True))


def _translated(
    records: list[dict[str, str]],
    surrogates: Surrogates,
    studies: Mapping[str, str],
    vault: Vault,
    problems: Counter[str],
) -> list[dict[str, str | None]]:
    patient_ids = vault.originals("patient", set(studies.values()))
    rows: dict[tuple[str | None, ...], dict[str, str | None]] = {}
    for record in records:
        if not record["study_instance_uid"] or not record["code"]:
            problems["without_code" if record["study_instance_uid"] else "without_study"] += 1
            continue
        study = surrogates.uid(record["study_instance_uid"])
        patient = _patient(record, surrogates, studies.get(study), patient_ids, problems)
        accession = record["accession_number"]
        row: dict[str, str | None] = {
            "study": study,
            "patient": patient,
            "accession": surrogates.accession(accession) if accession else None,
            "code": record["code"],
            "scheme": record["coding_scheme"] or None,
            "meaning": record["meaning"] or None,
            "basis": record.get("basis") or None,
            "diagnosed_on": _shifted(record.get("diagnosed_on"), patient, surrogates, problems),
            "valid_from": _shifted(record.get("valid_from"), patient, surrogates, problems),
            "superseded_by": record.get("superseded_by") or None,
        }
        problems["repeated"] += tuple(row.values()) in rows
        rows[tuple(row.values())] = row
    problems += Counter()
    return sorted(rows.values(), key=lambda row: [value or "" for value in row.values()])


def _patient(
    record: Mapping[str, str],
    surrogates: Surrogates,
    of_study: str | None,
    patient_ids: Mapping[str, str],
    problems: Counter[str],
) -> str | None:
    patient_id = record["patient_id"]
    if not patient_id:
        problems["without_patient"] += 1
        return of_study
    named = surrogates.named_patient(patient_id, record.get(ISSUER))
    if of_study is None:
        return named.surrogate
    held = NamedPatient(of_study, surrogates.patient(patient_ids.get(of_study, "")))
    if held.may_be(named):
        return of_study
    problems["another_patient"] += 1
    return named.surrogate


def _shifted(
    value: str | None, patient: str | None, surrogates: Surrogates, problems: Counter[str]
) -> str | None:
    """Move a date as the patient's study dates are moved; what is no date, or nobody's, is dropped."""
    if not value:
        return None
    try:
        day = date.fromisoformat(value)
    except ValueError:
        problems["unreadable_date"] += 1
        return None
    shifted = surrogates.shift(day, patient) if patient else None
    return shifted.isoformat() if shifted else None


def _require_match(path: Path, rows: list[dict[str, str | None]], studies: Mapping[str, str]) -> None:
    if not rows:
        raise MetaDxError(
            "diagnoses_empty",
            f"{path} holds no line with a study and a code: fill both in for each diagnosis.",
        )
    if not any(row["study"] in studies for row in rows):
        advice = (
            "check that study_instance_uid is that of the images"
            if studies
            else "ingest the DICOM folder first"
        )
        raise MetaDxError(
            "diagnoses_of_other_studies",
            f"{path} names no study that is in the home (of {len(studies)}): {advice}.",
        )
