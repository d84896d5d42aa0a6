"""The desk at which people change support sets: original study UIDs at the edge, surrogates inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from meta_dx.cohort.catalog import Catalog
from meta_dx.dicom.identity import Surrogates
from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from meta_dx.records.database import Records
from meta_dx.records.support import SupportCase, SupportSets, SupportSetVersion
from meta_dx.records.vault import Vault
from meta_dx.steps.predictions import unshifted


@dataclass(frozen=True)
class SupportDesk:
    """Support sets of one home, spoken to in original study UIDs."""

    home: Home
    sets: SupportSets
    vault: Vault

    @classmethod
    def open(cls, home: Home) -> SupportDesk:
        """Open the records and the vault of a home."""
        return cls(home, SupportSets(Records.open(home)), Vault.open(home))

    def version(self, number: int | None = None) -> SupportSetVersion:
        """Return one version, or the current one.

        Raises
        ------
        MetaDxError
            ``no_support_set`` before the first, ``unknown_support_version``.
        """
        if number is not None:
            return self.sets.get(number)
        current = self.sets.current()
        if current is None:
            raise MetaDxError(
                "no_support_set",
                f"The home {self.home.root} has no support set yet: 'make run' makes the first one.",
            )
        return current

    def original_studies(self, studies: Sequence[str]) -> dict[str, str]:
        """Return surrogate → original study UID; a study whose original is unknown keeps its surrogate."""
        known = self.vault.originals("study", studies)
        return {study: known.get(study, study) for study in studies}

    def add(
        self,
        originals: Sequence[str],
        *,
        code: str,
        scheme: str,
        meaning: str,
        confirmed_by: str | None,
        confirmed_on: str | None,
        basis: str | None,
        author: str,
        reason: str,
    ) -> SupportSetVersion:
        """Add studies as confirmed cases of one disease.

        Raises
        ------
        MetaDxError
            ``unknown_study`` for a study that the home does not hold; from :meth:`SupportSets.add`.
        """
        patient_of = self._patients(originals)
        current = self.sets.current()
        if current is not None and not meaning:
            same = current.cases_of(code)
            scheme, meaning = (scheme or same[0].scheme, same[0].meaning) if same else (scheme, meaning)
        if not meaning:
            raise MetaDxError(
                "support_case_incomplete", f"Disease {code} is new here: name it with --meaning."
            )
        cases = [
            SupportCase(
                code=code,
                scheme=scheme,
                meaning=meaning,
                study=study,
                patient=patient,
                confirmed_by=confirmed_by,
                confirmed_on=self._shifted(confirmed_on, patient),
                basis=basis,
            )
            for study, patient in patient_of.items()
        ]
        return self.sets.add(cases, author=author, reason=reason)

    def remove(self, *, code: str | None, study: str | None, author: str, reason: str) -> SupportSetVersion:
        """Remove a disease or one study."""
        inside = None if study is None else Surrogates(self.vault.key).uid(study)
        return self.sets.remove(code=code, study=inside, author=author, reason=reason)

    def correct(
        self, originals: Sequence[str], *, author: str, reason: str, **particulars: str | None
    ) -> SupportSetVersion:
        """Give studies another disease."""
        studies = list(self._patients(originals))
        return self.sets.correct(studies, author=author, reason=reason, **particulars)

    def true_day(self, case: SupportCase) -> str | None:
        """Return the day on which a case was confirmed, as people wrote it; the store holds it shifted."""
        return unshifted(case.confirmed_on, Surrogates(self.vault.key).shift_days(case.patient))

    def _shifted(self, day: str | None, patient: str) -> str | None:
        if day is None:
            return None
        try:
            moved = Surrogates(self.vault.key).shift(date.fromisoformat(day), patient)
        except ValueError as fault:
            raise MetaDxError("bad_date", f"--confirmed-on is '{day}': write it as YYYY-MM-DD.") from fault
        return None if moved is None else moved.isoformat()

    def _patients(self, originals: Sequence[str]) -> dict[str, str]:
        surrogates = Surrogates(self.vault.key)
        studies = Catalog(self.home).studies()
        patient_of = dict(zip(studies["study"], studies["patient"], strict=True))
        found = {}
        for place, original in enumerate(originals, 1):
            study = surrogates.uid(original)
            if study not in patient_of:
                raise MetaDxError(
                    "unknown_study",
                    f"{f'Study {place} of the {len(originals)}' if len(originals) > 1 else 'The study'} named with "
                    f"--study is not in {self.home.root}: "
                    "take it in first with 'meta-dx ingest'.",
                )
            found[study] = patient_of[study]
        return found
