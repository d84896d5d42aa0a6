"""Options of ingest: how much of the machine it may take, and what it lets in."""

from __future__ import annotations

from dataclasses import dataclass

from meta_dx.dicom.quarantine import QUARANTINED
from meta_dx.dicom.reading import ReadLimits
from meta_dx.errors import MetaDxError, OptionChecks, refuse_values


@dataclass(frozen=True)
class IngestOptions:
    """Section ``[ingest]`` of ``cohort.toml``.

    Parameters
    ----------
    workers : int
        Processes that read files, each with its own limits; 0: one for each core, eight at most. The result
        is the same.
    max_file_bytes : int
        Larger files are refused.
    max_decoded_bytes : int
        Files whose content would be larger than this after unpacking are refused.
    max_memory_bytes : int
        Address space of a process that reads; a file that needs more is refused. At least 256 MiB.
    max_seconds : float
        A file whose reading takes longer is refused.
    max_archive_members : int
        An archive's files beyond this number are refused.
    max_archive_bytes : int
        An archive's files beyond this size of them all, unpacked, are refused.
    max_archive_ratio : float
        An archive's files beyond this multiple of its own size are refused (after the first 64 MiB).
    allow : tuple of str
        Kinds of pictures that are taken although they may show whose they are: ``burned_in_annotation``,
        ``recognizable_features``, ``secondary_capture``, ``ultrasound``.
    """

    workers: int = 0
    max_file_bytes: int = 2 << 30
    max_decoded_bytes: int = 4 << 30
    max_memory_bytes: int = 4 << 30
    max_seconds: float = 120.0
    max_archive_members: int = 100_000
    max_archive_bytes: int = 1 << 37
    max_archive_ratio: float = 200.0
    allow: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for kind in self.allow:
            if kind not in QUARANTINED:
                raise MetaDxError(
                    "bad_value",
                    f"allow has '{kind}': it may name {', '.join(QUARANTINED)}, and nothing else.",
                )
        whole = "a whole number from 1"
        checks: OptionChecks = [
            ("workers", 0 <= self.workers <= 1024, "a whole number from 0 (one a core) to 1024"),
            ("max_file_bytes", self.max_file_bytes >= 1, whole),
            ("max_decoded_bytes", self.max_decoded_bytes >= 1, whole),
            ("max_memory_bytes", self.max_memory_bytes >= 1 << 28, "a whole number from 268435456 (256 MiB)"),
            ("max_seconds", 0 < self.max_seconds < float("inf"), "a number above 0"),
            ("max_archive_members", self.max_archive_members >= 1, whole),
            ("max_archive_bytes", self.max_archive_bytes >= 1, whole),
            ("max_archive_ratio", 1 <= self.max_archive_ratio < float("inf"), "a number from 1"),
        ]
        refuse_values(self, checks)

    @property
    def limits(self) -> ReadLimits:
        """What one file may be and take."""
        return ReadLimits(
            file_bytes=self.max_file_bytes,
            decoded_bytes=self.max_decoded_bytes,
            memory_bytes=self.max_memory_bytes,
            seconds=self.max_seconds,
            archive_members=self.max_archive_members,
            archive_bytes=self.max_archive_bytes,
            archive_ratio=self.max_archive_ratio,
            allow=frozenset(self.allow),
        )
