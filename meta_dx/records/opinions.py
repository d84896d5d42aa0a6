"""What readers say about a case: a blind first opinion, a decision after the reveal, an adjudication.

Plain values with their checks; :mod:`meta_dx.records.cases` keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from meta_dx.errors import MetaDxError
from meta_dx.records.coding_schemes import designator_of

Kind = Literal["blind", "decision", "adjudication"]
Verdict = Literal["accept", "override", "supplemented", "own", "cannot_tell", "bad_image"]
WITHOUT_DIAGNOSIS = frozenset({"cannot_tell", "bad_image"})

#: Why a reader went another way than the model, or could not decide.
REASONS: dict[str, str] = {
    "finding_missed": "The model misses a finding",
    "finding_invented": "The model sees what is not there",
    "clinical_context": "Clinical context says otherwise",
    "wrong_evidence": "The cases it rests on do not fit",
    "not_offered": "The disease is not among those offered",
    "image_quality": "Image quality",
    "other": "Other reason",
}
_MOST_RANKED, _LONGEST_TEXT = 5, 4000


@dataclass(frozen=True)
class Diagnosis:
    """A coded disease.

    Parameters
    ----------
    code : str
        The code.
    scheme : str
        Its coding scheme (``"SCT"``); may be empty.
    meaning : str
        Its name for people.
    """

    code: str
    scheme: str = ""
    meaning: str = ""

    def __post_init__(self) -> None:
        if not self.code.strip() or len(self.code) > 64 or len(self.scheme) > 16 or len(self.meaning) > 200:
            raise MetaDxError(
                "bad_opinion",
                "A diagnosis needs a code of at most 64 characters, of a coding scheme whose short name has at most 16 "
                "(such as SCT, I10 or RADLEX), and a name of at most 200.",
            )

    def same_as(self, other: Diagnosis) -> bool:
        """Tell whether both name one disease: by code, in any letter case, and scheme, where both name one."""
        # However each of them was spelt: lists come from tables, and what is typed is kept as the standard calls it.
        schemes = {designator_of(one.scheme).casefold() for one in (self, other) if one.scheme.strip()}
        return self.code.strip().casefold() == other.code.strip().casefold() and len(schemes) < 2


@dataclass(frozen=True)
class BlindOpinion:
    """What a reader thinks before the model is shown.

    Parameters
    ----------
    ranked : tuple of Diagnosis
        Most likely first, at most five; empty where the reader cannot tell.
    confidence : int
        Of the first, in percent.
    text : str
        Free text.
    """

    ranked: tuple[Diagnosis, ...]
    confidence: int
    text: str = ""

    def __post_init__(self) -> None:
        _require_text(self.text)
        if len(self.ranked) > _MOST_RANKED or len({d.code for d in self.ranked}) != len(self.ranked):
            raise MetaDxError("bad_opinion", f"Name at most {_MOST_RANKED} diagnoses, each once.")
        if not 0 <= self.confidence <= 100:
            raise MetaDxError("bad_opinion", "Confidence is a whole number from 0 to 100.")

    @property
    def first(self) -> str | None:
        """Code of the most likely disease."""
        return self.ranked[0].code if self.ranked else None


@dataclass(frozen=True)
class Decision:
    """What a reader decides.

    Parameters
    ----------
    verdict : {"accept", "override", "supplemented", "own", "cannot_tell", "bad_image"}
        About the model's answer; ``"own"`` where none was shown.
    diagnosis : Diagnosis, optional
        What the case shows; None with ``"cannot_tell"`` and ``"bad_image"``.
    reason : str
        One of :data:`REASONS`; empty only with ``"accept"``, ``"own"``.
    text : str
        Free text.
    """

    verdict: Verdict
    diagnosis: Diagnosis | None = None
    reason: str = ""
    text: str = ""

    def __post_init__(self) -> None:
        _require_text(self.text)
        if self.verdict not in get_args(Verdict):
            raise MetaDxError("bad_opinion", f"A verdict is one of {', '.join(get_args(Verdict))}.")
        if (self.diagnosis is None) != (self.verdict in WITHOUT_DIAGNOSIS):
            raise MetaDxError("bad_opinion", f"The verdict '{self.verdict}' needs {_needs(self.verdict)}.")
        if self.reason and self.reason not in REASONS:
            raise MetaDxError("bad_opinion", f"A reason is one of {', '.join(REASONS)}.")
        if not self.reason and self.verdict not in ("accept", "own"):
            raise MetaDxError("bad_opinion", "Say why, with one of the reasons.")
        if self.reason == "other" and not self.text.strip():
            raise MetaDxError("bad_opinion", "Say in words what the other reason is.")

    @property
    def outcome(self) -> str:
        """What a case came to: the code of a disease, or that there is none."""
        return self.diagnosis.code if self.diagnosis else self.verdict

    def agrees_with(self, other: Decision) -> bool:
        """Tell whether both decisions come to the same."""
        if self.diagnosis is None or other.diagnosis is None:
            return self.outcome == other.outcome
        return self.diagnosis.same_as(other.diagnosis)


@dataclass(frozen=True)
class Shown:
    """The prediction that a reader was shown: number of its run, hash of its bundle, version of its support set."""

    run: int
    bundle: str
    support_version: int


@dataclass(frozen=True)
class Opinion:
    """One version of what one reader said about one case.

    Parameters
    ----------
    study : str
        Surrogate UID of the case.
    account : str
        The reader.
    kind : {"blind", "decision", "adjudication"}
        What it is.
    version : int
        1, 2, …; the last one counts.
    content : BlindOpinion or Decision
        What was said.
    run : int, optional
        The prediction that had been shown; None for a blind opinion, and where none was shown.
    bundle : str, optional
        Hash of its bundle.
    support_version : int, optional
        Version of its support set.
    created_at : str
        ISO 8601, UTC.
    """

    study: str
    account: str
    kind: Kind
    version: int
    content: BlindOpinion | Decision
    run: int | None
    bundle: str | None
    support_version: int | None
    created_at: str

    @property
    def key(self) -> str:
        """What tells it from everything else that was said about the case."""
        return opinion_key(self.kind, self.account, self.version)


def opinion_key(kind: str, account: str, version: int) -> str:
    """Return the key of an opinion, where only a reference to it is at hand."""
    return f"{kind}/{account}/{version}"


def as_json(content: BlindOpinion | Decision) -> dict[str, Any]:
    """Return an opinion as JSON can hold it."""
    return asdict(content)


def from_json(kind: str, content: Mapping[str, Any]) -> BlindOpinion | Decision:
    """Return what :func:`as_json` made of an opinion of this kind."""
    if kind == "blind":
        ranked = tuple(Diagnosis(**item) for item in content["ranked"])
        return BlindOpinion(ranked, content["confidence"], content["text"])
    named = content["diagnosis"]
    diagnosis = None if named is None else Diagnosis(**named)
    return Decision(content["verdict"], diagnosis, content["reason"], content["text"])


def _require_text(text: str) -> None:
    if len(text) > _LONGEST_TEXT:
        raise MetaDxError("bad_opinion", f"Free text has at most {_LONGEST_TEXT} characters.")


def _needs(verdict: str) -> str:
    return "no diagnosis" if verdict in WITHOUT_DIAGNOSIS else "a diagnosis"
