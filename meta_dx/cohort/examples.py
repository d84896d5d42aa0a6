"""What one example is: one study, with the images that count for it, its patient group and its disease."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Examples:
    """Studies that a learner may draw, one row each.

    Parameters
    ----------
    study : ndarray of str, shape (n,)
        Identifier of the study (surrogate UID inside a home).
    patient : ndarray of str, shape (n,)
        Identifier of the patient *group*: patients joined by near-duplicate images count as one.
    code : ndarray of str, shape (n,)
        Disease code; ``""`` where the diagnosis is unknown or withheld.
    images : tuple of ndarray of int64, length n
        Rows of the study's images in the :class:`~meta_dx.cohort.images.ImageStore`; at least one each.
    """

    study: npt.NDArray[np.str_]
    patient: npt.NDArray[np.str_]
    code: npt.NDArray[np.str_]
    images: tuple[npt.NDArray[np.int64], ...]

    def __len__(self) -> int:
        return len(self.study)

    def take(self, rows: Sequence[int] | npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Examples:
        """Return the examples at these rows (indices or a boolean mask), in that order."""
        chosen = np.arange(len(self))[np.asarray(rows)]
        return Examples(
            self.study[chosen], self.patient[chosen], self.code[chosen], tuple(self.images[i] for i in chosen)
        )

    def with_codes(self, codes: Sequence[str] | set[str]) -> Examples:
        """Return the examples whose disease is one of ``codes``."""
        return self.take(np.isin(self.code, sorted(codes)))

    @property
    def diseases(self) -> list[str]:
        """Sorted disease codes that occur."""
        return sorted({str(code) for code in self.code if code})

    def patients_per_disease(self) -> dict[str, int]:
        """Count distinct patient groups for each disease."""
        return {code: len(set(self.patient[self.code == code])) for code in self.diseases}
