"""Versioned support sets: the confirmed cases that a model adapts to, and who vouches for each.

The diagnosis table makes the first version; after that the table and people change it side by side. Each case
has an *origin*, the table or a person, and what a person removed is remembered, so that the next import of
the table neither drops what people added nor brings back what they took out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, fields, replace

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from meta_dx.errors import MetaDxError
from meta_dx.home import fingerprint_of
from meta_dx.records.database import Records
from meta_dx.records.schema import SupportChangeRow, SupportVersionRow, now
from meta_dx.records.support_case import (
    SupportCase,
    SupportSetSummary,
    SupportSetVersion,
    check,
    checked,
    refuse_second_disease,
)

__all__ = ["SupportCase", "SupportSetSummary", "SupportSetVersion", "SupportSets"]

_WHOLE_DISEASE = ""  # stands in the place of the study


# What a version knows, by (study, code): the case, or None where a person removed it. A key with an empty
# study holds None for a disease that a person removed as a whole.
_Book = dict[tuple[str, str], SupportCase | None]


class SupportSets:
    """Every version of the support set of one home.

    Each change is one transaction that makes a new version; a change that changes nothing makes none. Two
    people may change the set at the same time: the second change is worked out again on top of the first.

    Parameters
    ----------
    records : Records
        The opened records.
    """

    def __init__(self, records: Records) -> None:
        self._records = records

    def current(self) -> SupportSetVersion | None:
        """Return the newest version, or None before the first."""
        with self._records.reading() as session:
            head = _head(session)
            return None if head is None else _version(head, _book(session, head.version))

    def get(self, version: int) -> SupportSetVersion:
        """Return one version, however old.

        Raises
        ------
        MetaDxError
            ``unknown_support_version``.
        """
        with self._records.reading() as session:
            row = session.get(SupportVersionRow, version)
            if row is None:
                newest = session.scalar(select(func.max(SupportVersionRow.version)))
                known = f"the newest is {newest}" if newest else "there is none yet, import diagnoses first"
                raise MetaDxError(
                    "unknown_support_version", f"There is no support set version {version}: {known}."
                )
            return _version(row, _book(session, version))

    def versions(self) -> list[SupportSetSummary]:
        """Return every version without its cases, oldest first."""
        with self._records.reading() as session:
            rows = session.scalars(select(SupportVersionRow).order_by(SupportVersionRow.version))
            names = [field.name for field in fields(SupportSetSummary)]
            return [SupportSetSummary(**{name: getattr(row, name) for name in names}) for row in rows]

    def add(
        self,
        cases: Iterable[SupportCase],
        author: str,
        reason: str,
        within: Session | None = None,
        upon: int | None = None,
    ) -> SupportSetVersion:
        """Add cases that a person vouches for; a case already there takes over the new particulars.

        A later import of the diagnosis table leaves these cases alone.

        Parameters
        ----------
        cases : iterable of SupportCase
            One or more; their ``origin`` becomes ``"person"``.
        author, reason : str
            Kept with the version.
        within : sqlalchemy.orm.Session, optional
            A transaction to be part of: the version is there if, and only if, all else of it is.
        upon : int, optional
            The version (0 before the first) that they are to be added to, and to no other.

        Returns
        -------
        SupportSetVersion
            The version that holds them.

        Raises
        ------
        MetaDxError
            ``study_in_two_diseases``, ``support_case_incomplete``, ``support_reason_missing``, or ``support_changed``
            where another version than ``upon`` is in force.
        """
        wanted = checked(cases, "person")

        def change(book: _Book) -> None:
            held = _held(book)
            for case in wanted:
                refuse_second_disease(case, held.get(case.study))
                _put(book, case)

        return self._change(change, author, reason, within, upon)

    def remove(
        self, *, code: str | None = None, study: str | None = None, author: str, reason: str
    ) -> SupportSetVersion:
        """Remove one disease with all its cases, or one study.

        The removal holds against later imports of the diagnosis table until a person adds the case again; a
        disease that was removed as a whole stays out until a person adds a case of it.

        Parameters
        ----------
        code : str, optional
            The disease; with ``study``, the disease that the study must have.
        study : str, optional
            Surrogate UID of the study; without it the whole disease goes.
        author, reason : str
            Kept with the version.

        Returns
        -------
        SupportSetVersion

        Raises
        ------
        MetaDxError
            ``support_nothing_named``, ``unknown_support_case`` or ``support_reason_missing``.
        """
        if code is None and study is None:
            raise MetaDxError("support_nothing_named", "Say what to remove: a disease code or a study.")

        def change(book: _Book) -> None:
            gone = [
                case
                for case in _held(book).values()
                if study in (None, case.study) and code in (None, case.code)
            ]
            if not gone:
                what = " of ".join(
                    word for word in (study and f"study {study}", code and f"disease {code}") if word
                )
                raise MetaDxError(
                    "unknown_support_case",
                    f"The support set holds no {what}: see what it holds and name that.",
                )
            for case in gone:
                book[case.study, case.code] = None
                if study is None:
                    book[_WHOLE_DISEASE, case.code] = None

        return self._change(change, author, reason)

    def correct(
        self,
        study: str | Iterable[str],
        *,
        author: str,
        reason: str,
        code: str | None = None,
        scheme: str | None = None,
        meaning: str | None = None,
        confirmed_by: str | None = None,
        confirmed_on: str | None = None,
        basis: str | None = None,
    ) -> SupportSetVersion:
        """Correct what is said about one study, or about several at once (a whole disease, say).

        From then on it is a person's word: the diagnosis table no longer changes these studies.

        Parameters
        ----------
        study : str or iterable of str
            Surrogate UIDs of studies that are in the set.
        author, reason : str
            Kept with the version.
        code, scheme, meaning, confirmed_by, confirmed_on, basis : str, optional
            What is right; what is not given stays. With a new ``code``, scheme and meaning come from the
            cases of that disease in the set; a disease that is new to the set needs its ``meaning``.

        Returns
        -------
        SupportSetVersion

        Raises
        ------
        MetaDxError
            ``unknown_support_case``, ``support_case_incomplete`` or ``support_reason_missing``.
        """
        studies = [study] if isinstance(study, str) else list(study)
        particulars = {
            "code": code,
            "scheme": scheme,
            "meaning": meaning,
            "confirmed_by": confirmed_by,
            "confirmed_on": confirmed_on,
            "basis": basis,
        }
        given = {name: value for name, value in particulars.items() if value is not None}

        def change(book: _Book) -> None:
            held = _held(book)
            for name in studies:
                if name not in held:
                    raise MetaDxError(
                        "unknown_support_case", f"The support set holds no study {name}: add it instead."
                    )
                new = replace(
                    held[name], origin="person", **(_named(given, held[name], held.values()) | given)
                )
                check(new)
                if new.code != held[name].code:
                    book[name, held[name].code] = None
                _put(book, new)

        return self._change(change, author, reason)

    def import_table(self, cases: Iterable[SupportCase], author: str, reason: str) -> SupportSetVersion:
        """Make the set say what the diagnosis table says, and keep what people said.

        Cases that came from an earlier table and are gone from this one are dropped. A person's word stands:
        cases added or corrected by hand stay as they are, and what a person removed stays out.

        Parameters
        ----------
        cases : iterable of SupportCase
            All confirmed cases of the table, one disease a study; their ``origin`` becomes ``"table"``.
        author, reason : str
            Kept with the version.

        Returns
        -------
        SupportSetVersion
            The current version when the table brings nothing new.

        Raises
        ------
        MetaDxError
            ``study_in_two_diseases``, ``support_case_incomplete`` or ``support_reason_missing``.
        """
        wanted = checked(cases, "table")

        def change(book: _Book) -> None:
            for key in [key for key, case in book.items() if case is not None and case.origin == "table"]:
                del book[key]
            vouched = _held(book)
            for case in wanted:
                removed = (case.study, case.code) in book or (_WHOLE_DISEASE, case.code) in book
                if not removed and case.study not in vouched:
                    book[case.study, case.code] = case

        return self._change(change, author, reason)

    def _change(
        self,
        change: Callable[[_Book], None],
        author: str,
        reason: str,
        within: Session | None = None,
        upon: int | None = None,
    ) -> SupportSetVersion:
        if not author.strip() or not reason.strip():
            raise MetaDxError(
                "support_reason_missing", "A support set changes only with a name and a reason: give both."
            )

        def work(session: Session) -> SupportSetVersion:
            head = _head(session)
            if upon is not None and upon != (head.version if head else 0):
                raise MetaDxError(
                    "support_changed", f"Version {upon} of the support set is no longer in force."
                )
            before: _Book = {} if head is None else _book(session, head.version)
            after = dict(before)
            change(after)
            if head is not None and after == before:
                return _version(head, before)
            return _write(session, 1 if head is None else head.version + 1, before, after, author, reason)

        return self._records.write(work) if within is None else work(within)


def _head(session: Session) -> SupportVersionRow | None:
    return session.scalar(select(SupportVersionRow).order_by(SupportVersionRow.version.desc()).limit(1))


def _book(session: Session, version: int) -> _Book:
    row = SupportChangeRow
    last = (
        select(row.study, row.code, func.max(row.version).label("version"))
        .where(row.version <= version)
        .group_by(row.study, row.code)
        .subquery()
    )
    names = [field.name for field in fields(SupportCase)]
    # Columns, not objects that the session would track: a set of thousands of cases is read with every lesson.
    rows = session.execute(
        select(row.state, row.study, row.code, *(getattr(row, name) for name in names))
        .join(last, (row.study == last.c.study) & (row.code == last.c.code) & (row.version == last.c.version))
        .where(row.state != "dropped")
    )
    return {
        (study, code): SupportCase(*particulars) if state == "present" else None
        for state, study, code, *particulars in rows
    }


def _version(row: SupportVersionRow, book: _Book) -> SupportSetVersion:
    return SupportSetVersion(
        row.version, row.created_at, row.author, row.reason, row.fingerprint, _cases(book)
    )


def _cases(book: _Book) -> tuple[SupportCase, ...]:
    return tuple(sorted(_held(book).values(), key=lambda case: (case.code, case.study)))


def _held(book: _Book) -> dict[str, SupportCase]:
    return {case.study: case for case in book.values() if case is not None}


def _write(
    session: Session, version: int, before: _Book, after: _Book, author: str, reason: str
) -> SupportSetVersion:
    cases = _cases(after)
    row = SupportVersionRow(
        version=version,
        created_at=now(),
        author=author,
        reason=reason,
        fingerprint=fingerprint_of(cases),
        disease_count=len({case.code for case in cases}),
        case_count=len(cases),
    )
    session.add(row)
    session.flush()
    changes = []
    for key in sorted(before.keys() | after.keys()):
        if key in before and key in after and before[key] == after[key]:
            continue
        case = after.get(key)
        state = "present" if case is not None else "removed" if key in after else "dropped"
        particulars = (
            dict.fromkeys(field.name for field in fields(SupportCase)) if case is None else asdict(case)
        )
        changes.append({**particulars, "version": version, "study": key[0], "code": key[1], "state": state})
    if changes:
        session.execute(insert(SupportChangeRow), changes)
    return _version(row, after)


def _put(book: _Book, case: SupportCase) -> None:
    """Set a person's case; their word also lets a disease that had been removed back in."""
    book[case.study, case.code] = case
    book.pop((_WHOLE_DISEASE, case.code), None)


def _named(given: dict[str, str], old: SupportCase, held: Iterable[SupportCase]) -> dict[str, str]:
    """Scheme and meaning of a corrected code, from the cases that have it already."""
    code = given.get("code", old.code)
    if code == old.code:
        return {}
    for case in held:
        if case.code == code:
            return {"scheme": case.scheme, "meaning": case.meaning}
    if "meaning" not in given:
        raise MetaDxError(
            "support_case_incomplete", f"The disease {code} is new to the support set: say its meaning, too."
        )
    return {}
