"""Section ``[review]`` of ``cohort.toml``."""

from __future__ import annotations

from dataclasses import dataclass, field

from meta_dx.errors import OptionChecks, refuse_values
from meta_dx.review.openid_options import OpenIdOptions


@dataclass(frozen=True)
class ReviewOptions:
    """How cases are reviewed.

    Parameters
    ----------
    readers : int
        How many readers decide about a case: 1, or 2 who do not see each other, with an adjudicator where they differ.
    cache_mb : int
        Memory for decoded pictures on the server, in megabytes.
    archive : str
        Where structured reports can be stored, written like a source without filters; empty: nowhere.
    organisation : str
        For whom readers decide, as reports name it; empty: they name none.
    saliency : bool
        After the reveal, on request: which part of a picture moved a probability. Needs ``captum``.
    openid : OpenIdOptions
        Who else may vouch for readers.
    """

    readers: int = 1
    cache_mb: int = 256
    archive: str = ""
    organisation: str = ""
    saliency: bool = False
    openid: OpenIdOptions = field(default_factory=OpenIdOptions)

    def __post_init__(self) -> None:
        checks: OptionChecks = [
            ("readers", self.readers in (1, 2), "1 or 2"),
            ("cache_mb", 1 <= self.cache_mb <= 65536, "a whole number from 1 to 65536"),
            ("organisation", len(self.organisation) <= 64, "at most 64 letters, as DICOM has room for"),
        ]
        refuse_values(self, checks)
