"""Studies in which some files name the issuer of the patient's number and others do not: one patient, not two."""

from __future__ import annotations

import os

from meta_dx.dicom.identity import NamedPatient
from meta_dx.dicom.sources import FoundFile


class MixedStudies:
    """The studies in which the patient was found under two names, with the one that each study gets.

    Attributes
    ----------
    patients : dict of str to NamedPatient
        By study. Files that were read as somebody else are to be read again with them
        (:attr:`meta_dx.dicom.reading.ReadLimits.patients`): the dates in a file are moved by its patient.
    """

    def __init__(self) -> None:
        self.patients: dict[str, NamedPatient] = {}
        self._issuers: dict[str, NamedPatient] = {}

    def joins(self, study: str, held: NamedPatient, named: NamedPatient) -> bool:
        """Tell whether a file means the patient of its study and names him otherwise.

        Parameters
        ----------
        study : str
            The study.
        held : NamedPatient
            Its patient so far.
        named : NamedPatient
            Whom the file names.
        """
        patient = self.patients.get(study, held)
        if named.surrogate == held.surrogate or not patient.may_be(named):
            return False
        # A study whose patient stays without an issuer may be joined by the files of one, not of two.
        if not named.without_issuer and not self._issuers.setdefault(study, named).may_be(named):
            return False
        self.patients[study] = patient
        return True


def reading_order(file: FoundFile) -> tuple[bytes, int]:
    """Return by what files are sorted that are read again: their paths, and their places in an archive."""
    return os.fsencode(file.place), file.member or 0
