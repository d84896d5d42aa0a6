"""Surrogate identities: what stands in every store instead of a UID, an accession or a patient number.

A surrogate is the HMAC-SHA256 of the original under the secret key of the home (it lies in the identity
vault, :mod:`meta_dx.records.vault`). The same original always has the same surrogate in one home, so tables
join without the original; without the key nobody gets back, and two homes do not share a single surrogate.
"""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass
from datetime import date, timedelta

_PADDING = " \t\r\n\0"


@dataclass(frozen=True)
class NamedPatient:
    """A patient as a file, or a study that is held, names him.

    Parameters
    ----------
    surrogate : str
        Of number and issuer.
    of_number : str
        Of the number alone: the same as ``surrogate`` where no issuer is named.
    """

    surrogate: str
    of_number: str

    @property
    def without_issuer(self) -> bool:
        """Whether the number alone is named."""
        return self.surrogate == self.of_number

    def may_be(self, other: NamedPatient) -> bool:
        """Tell whether two names in one study mean one patient: the same number, and at most one issuer."""
        if self.surrogate == other.surrogate:
            return True
        return self.of_number == other.of_number and (self.without_issuer or other.without_issuer)


class Surrogates:
    """Keyed, repeatable stand-ins for identifying values.

    Parameters
    ----------
    key : bytes
        The secret of the home, at least 16 bytes.

    Raises
    ------
    ValueError
        The key is too short to protect anything.

    Notes
    -----
    Every kind of value is hashed in its own domain, so a patient number that happens to equal an accession
    number does not share its surrogate. Leading and trailing blanks and NUL padding, which DICOM does not
    count as part of a value, never make a difference.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < 16:
            raise ValueError("the key of the home must have at least 16 bytes")
        self._key = key
        # Derived from the home's key, so that no content can imitate one of the other values.
        self._key_of_content = self._mac("content", "")

    def uid(self, original: str) -> str:
        """Return the surrogate of any UID: ``2.25.`` and a number of 128 bits, valid in DICOM."""
        return f"2.25.{int.from_bytes(self._mac('uid', clean(original))[:16], 'big')}"

    def patient(self, patient_id: str, issuer: str | None = None) -> str:
        """Return the surrogate of a patient.

        Parameters
        ----------
        patient_id : str
            PatientID.
        issuer : str, optional
            IssuerOfPatientID. Two hospitals may give the same number to two people, so a patient with an
            issuer is not the one without, but in one and the same study (:class:`NamedPatient`).

        Returns
        -------
        str
            ``P`` and 16 characters of base 32.
        """
        return "P" + self._base32("patient", clean(patient_id), clean(issuer or ""), length=16)

    def named_patient(self, patient_id: str, issuer: str | None = None) -> NamedPatient:
        """Return the surrogates of a patient, with and without the issuer."""
        return NamedPatient(self.patient(patient_id, issuer), self.patient(patient_id))

    def accession(self, accession_number: str) -> str:
        """Return the surrogate of an accession number: ``A`` and 15 characters, as long as DICOM allows."""
        return "A" + self._base32("accession", clean(accession_number), length=15)

    def file(self, path: str) -> str:
        """Return the surrogate of a path: ``F`` and 16 characters of base 32."""
        return "F" + self._base32("file", path, length=16)

    def digest(self, data: bytes | memoryview) -> str:
        """Return the keyed SHA-256 of any content, in hexadecimal.

        The key keeps somebody who has the original file at hand from finding out whether it is in the home.
        """
        return hmac.digest(self._key_of_content, data, "sha256").hex()

    def shift_days(self, patient: str) -> int:
        """Return by how many days (1 to 365) all dates of a patient are moved into the past.

        Intervals between two dates of one patient stay as they were.

        Parameters
        ----------
        patient : str
            The patient's surrogate, as :meth:`patient` returns it.

        Returns
        -------
        int
        """
        return 1 + int.from_bytes(self._mac("shift", patient)[:8], "big") % 365

    def shift(self, day: date, patient: str) -> date | None:
        """Return the day moved by :meth:`shift_days`, or ``None`` where the calendar begins."""
        try:
            return day - timedelta(days=self.shift_days(patient))
        except OverflowError:
            return None

    def shifted_back(self, day: date, patient: str) -> date:
        """Return the day that :meth:`shift` has moved."""
        return day + timedelta(days=self.shift_days(patient))

    def _base32(self, kind: str, *parts: str, length: int) -> str:
        return base64.b32encode(self._mac(kind, *parts)).decode("ascii")[:length]

    def _mac(self, kind: str, *parts: str) -> bytes:
        # Each part is preceded by its length: no two lists of parts give the same message.
        encoded = [part.encode("utf-8", "surrogateescape") for part in (kind, *parts)]
        message = b"".join(len(part).to_bytes(8, "big") + part for part in encoded)
        return hmac.digest(self._key, message, "sha256")


def clean(value: str) -> str:
    """Strip what DICOM does not count as part of an identifier: blanks and NUL around it."""
    return value.strip(_PADDING)
