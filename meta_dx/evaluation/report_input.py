"""What the report tells: results of this room, and plain facts that the steps before it collect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meta_dx.evaluation.deployment import DeploymentResult
from meta_dx.evaluation.episodic import EpisodicResult
from meta_dx.evaluation.holdout import HoldoutResult

#: A label and what stands beside it, already written for people.
Fact = tuple[str, str]


@dataclass(frozen=True)
class Counted:
    """Something that was counted, and why it is so.

    Parameters
    ----------
    name : str
        Code or label.
    count : int
        How many.
    reason : str
        One sentence for people; may be empty.
    """

    name: str
    count: int
    reason: str = ""


@dataclass(frozen=True)
class RoleCount:
    """How much of the cohort a role of the split holds."""

    role: str
    diseases: int
    patients: int
    studies: int


@dataclass(frozen=True)
class DataSummary:
    """Where the figures come from.

    Parameters
    ----------
    found, accepted, duplicates, not_dicom : int
        Files.
    rejected : tuple of Counted
        Files by rejection code; found = accepted + duplicates + not_dicom + all of these.
    studies, patients, without_diagnosis : int
        Studies and patients taken in, and studies without a diagnosis (kept for prediction).
    roles : tuple of RoleCount
        Common, validation and rare diseases of the frozen split.
    near_duplicate_groups, near_duplicate_patients : int
        Groups of patients joined because they share near-identical images, and patients in them; a group
        counts as one patient.
    left_out : tuple of Counted
        Studies that are in no role, by reason.
    """

    found: int
    accepted: int
    duplicates: int
    not_dicom: int
    rejected: tuple[Counted, ...]
    studies: int
    patients: int
    without_diagnosis: int
    roles: tuple[RoleCount, ...]
    near_duplicate_groups: int
    near_duplicate_patients: int
    left_out: tuple[Counted, ...]


@dataclass(frozen=True)
class TrainingSummary:
    """How the model came to be.

    Parameters
    ----------
    facts : tuple of (label, text)
        Backbone, size, pictures, time, device, …
    how_chosen : str
        One or two sentences: what was chosen between, by which figure, on the validation diseases.
    candidates : tuple of tuple of str
        Table of the choice: the first row is its head, the row that won comes first after it. May be empty.
    curves : bytes or None
        PNG of the learning curves.
    """

    facts: tuple[Fact, ...]
    how_chosen: str
    candidates: tuple[tuple[str, ...], ...] = ()
    curves: bytes | None = None


@dataclass(frozen=True)
class ReportInput:
    """Everything that the report tells.

    Parameters
    ----------
    cohort : str
        Name of the cohort.
    created : str
        Day of the evaluation, ISO.
    episodic : tuple of EpisodicResult
        One for each number of shots, fewest first; the last one leads the headline.
    deployment : DeploymentResult or None
        The deployment view.
    holdout : HoldoutResult or None
        Score of the hidden cases of the inbox.
    data, training : DataSummary, TrainingSummary
        Where it comes from.
    openings : int
        Distinct looks at the rare diseases under this split, this one included.
    versions : tuple of (label, text)
        Bundle, split, data, support set, program.
    names : mapping of str to str
        Disease code → name.
    limits : tuple of str
        What limits these figures in this cohort; general limits are always added.
    """

    cohort: str
    created: str
    episodic: tuple[EpisodicResult, ...]
    deployment: DeploymentResult | None
    holdout: HoldoutResult | None
    data: DataSummary
    training: TrainingSummary
    openings: int
    versions: tuple[Fact, ...]
    names: Mapping[str, str] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
