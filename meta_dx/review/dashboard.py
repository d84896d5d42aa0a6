"""What a lead wants to know: how readers and model agree, how right the model is in use, and how long a case takes.

Rightness is counted only against what the model cannot have influenced: blind first reads, and labels that rest on
pathology, follow-up or an adjudication without the model. Agreement after the reveal says how readers and model get on,
not who is right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from statistics import median

from meta_dx.metrics.intervals import effective_number, wilson
from meta_dx.records.opinions import WITHOUT_DIAGNOSIS, BlindOpinion, Decision, Opinion
from meta_dx.records.predictions import Told, ranked

FEWEST_FOR_A_SHARE = 12
"""Patients below which no share is told: from 12 on no 95 % interval is wider than half of the scale."""
_BINS = 5
_NOTHING = Told({}, False)


@dataclass(frozen=True)
class Share:
    """A share with its 95 % interval (Wilson).

    Parameters
    ----------
    right, of : int
        How many of how many.
    patients : int, optional
        Of how many patients; as many as ``of`` if absent.
    independent : float, optional
        How many independent ones they are worth (:func:`~meta_dx.metrics.intervals.effective_number`); as many as
        ``of`` if absent.
    """

    right: int
    of: int
    patients: int | None = None
    independent: float | None = None

    @property
    def value(self) -> float | None:
        """The share; None of nothing."""
        return self.right / self.of if self.of else None

    @property
    def people(self) -> int:
        """Of how many patients."""
        return self.of if self.patients is None else self.patients

    @property
    def enough(self) -> bool:
        """Whether there are enough patients to tell the share."""
        return self.people >= FEWEST_FOR_A_SHARE

    @property
    def interval(self) -> tuple[float, float] | None:
        """Its ends; None of nothing."""
        return wilson(self.right / self.of, self.independent or self.of) if self.of else None


@dataclass(frozen=True)
class ReadCase:
    """One reader's way through one case, with what the model had said.

    Parameters
    ----------
    study, reader : str
        Which case, and who.
    blind : str, optional
        First disease of the blind opinion; None where the reader could not tell.
    outcome : str, optional
        What was decided; None before.
    answer : mapping of str to float
        The model's probabilities when the reader first decided; empty where it was not asked. A later
        answer may rest on what the reader has said: it is held against no blind read and no reference label.
    day : str
        Of the blind opinion, as an ISO date.
    served : mapping of (str, int) to (str, str)
        First and last day on which this reader decided beside an answer, by its bundle and version of the support set.
    seen : bool
        Whether the reader was shown the answer; in shadow mode nobody is.
    patient : str
        Surrogate of whose case it is; empty where that is not known.
    beside : mapping of str to float, optional
        The model's probabilities beside the last decision; None where they are those of ``answer``.
    flattered : bool
        The patient was in the support set of ``answer``.
    supplemented : bool
        The last decision calls the model's first disease true, and ``outcome`` is what it adds.
    """

    study: str
    reader: str
    blind: str | None
    outcome: str | None
    answer: Mapping[str, float]
    day: str
    served: Mapping[tuple[str, int], tuple[str, str]] = field(default_factory=dict)
    seen: bool = True
    patient: str = ""
    beside: Mapping[str, float] | None = None
    flattered: bool = False
    supplemented: bool = False

    @property
    def top(self) -> str | None:
        """The model's most probable disease when the reader first decided."""
        return _top(self.answer)

    @property
    def last_top(self) -> str | None:
        """The model's most probable disease beside the last decision."""
        return _top(self.answer if self.beside is None else self.beside)

    @property
    def agreed(self) -> bool:
        """Whether the last decision calls true what the model said first beside it, alone or with something else."""
        return self.supplemented or self.outcome == self.last_top


@dataclass(frozen=True)
class Served:
    """A model that has answered.

    Parameters
    ----------
    bundle, support_version : str, int
        Hash of the bundle, and version of the support set.
    readings : int
        In which somebody has decided beside its answer.
    first, last : str
        Days of the first and the last of these decisions, as ISO dates, UTC.
    """

    bundle: str
    support_version: int
    readings: int
    first: str
    last: str


@dataclass(frozen=True)
class Dashboard:
    """The figures of a review.

    Parameters
    ----------
    cases, decided : int
        Cases with a blind opinion, and those about which one of these readers has decided.
    readings, decided_readings : int
        The same, counting every reader of a case.
    blind_agreement : Share
        The blind first disease is the model's first one. Here, and wherever blind reads are held against the model, it
        does not count where the patient was in the support set.
    blind_unnamed, blind_flattered : int
        Readings that this leaves out: those that name no disease, and of the others those whose patient was in it.
    agreement : Share
        The decision is the model's first disease, after it was shown, or adds to it.
    unnamed : int
        Readings that this leaves out, because the decision names no disease.
    persuaded : Share
        Of the cases in which blind opinion and model differed: decided as the model said.
    accuracy : Share
        The model's first disease is the reference label, where there is one and the patient was not in the support set.
    readers_accuracy : Share
        The blind first disease is that label.
    reliability : list of (float, Share)
        By the model's confidence, in five bins: mean confidence, and how often the blind read says the same. A bin with
        too few patients is left out.
    by_disease : list of (str, Share)
        Agreement of blind reads with the model, by the disease that the reader named.
    by_week : list of (str, Share)
        The same by week.
    minutes_to_read, minutes_to_decide : float, optional
        Medians: from opening to the blind opinion, and from there to the decision. None of
        fewer than :data:`FEWEST_FOR_A_SHARE`.
    served : list of Served
        Which model answered when, in order of time.
    """

    cases: int
    decided: int
    readings: int
    decided_readings: int
    blind_agreement: Share
    blind_unnamed: int
    blind_flattered: int
    agreement: Share
    unnamed: int
    persuaded: Share
    accuracy: Share
    readers_accuracy: Share
    reliability: list[tuple[float, Share]]
    by_disease: list[tuple[str, Share]]
    by_week: list[tuple[str, Share]]
    minutes_to_read: float | None
    minutes_to_decide: float | None
    served: list[Served]


def read_cases(
    opinions: Sequence[Opinion],
    answers: Mapping[tuple[int, str], Told],
    patients: Mapping[str, str],
) -> list[ReadCase]:
    """Put together what each reader said about each case.

    Parameters
    ----------
    opinions : sequence of Opinion
        Everything that was said, in order of time.
    answers : mapping of (run, study) to Told
        What the model had said.
    patients : mapping of str to str
        Study → patient.

    Returns
    -------
    list of ReadCase
        Sorted by the time of the blind opinion.
    """
    blind: dict[tuple[str, str], Opinion] = {}
    begun: dict[tuple[str, str], Opinion] = {}
    decided: dict[tuple[str, str], Opinion] = {}
    served: dict[tuple[str, str], dict[tuple[str, int], tuple[str, str]]] = defaultdict(dict)
    for one in opinions:
        if one.kind == "blind":
            blind[one.study, one.account] = one
        elif one.kind == "decision":
            begun.setdefault((one.study, one.account), one)
            decided[one.study, one.account] = one
            if one.bundle is not None and one.support_version is not None:
                spans, which, day = (
                    served[one.study, one.account],
                    (one.bundle, one.support_version),
                    one.created_at[:10],
                )
                spans[which] = spans.get(which, (day, day))[0], day
    found = []
    for key, first in blind.items():
        last = decided.get(key)
        opinion, decision = first.content, last.content if last else None
        if not isinstance(opinion, BlindOpinion):
            continue
        was, beside = (_told(answers, said, key[0]) for said in (begun.get(key), last))
        found.append(
            ReadCase(
                key[0],
                key[1],
                opinion.first,
                decision.outcome if isinstance(decision, Decision) else None,
                was.probabilities,
                first.created_at[:10],
                served.get(key, {}),
                patient=patients.get(key[0], ""),
                beside=beside.probabilities,
                flattered=was.support_patient,
                supplemented=isinstance(decision, Decision) and decision.verdict == "supplemented",
            )
        )
    return found


def dashboard(
    cases: Sequence[ReadCase],
    references: Mapping[str, str],
    spans: Sequence[tuple[str, str | None, str | None]] = (),
) -> Dashboard:
    """Count.

    Parameters
    ----------
    cases : sequence of ReadCase
        From :func:`read_cases`.
    references : mapping of str to str
        Study → disease, where pathology, follow-up or an adjudication says so.
    spans : sequence of (started, read, decided)
        ISO times of every reading; None where it has not come so far.

    Returns
    -------
    Dashboard
    """
    answered = [case for case in cases if case.answer]
    named = [case for case in answered if case.blind is not None]
    told = [case for case in named if not case.flattered]
    seen = [case for case in answered if case.seen and case.outcome is not None and case.last_top is not None]
    settled = [case for case in seen if case.outcome not in WITHOUT_DIAGNOSIS]
    differed = [case for case in seen if case.blind is not None and case.blind != case.last_top]
    known = [case for case in answered if case.study in references]
    # The model answers a case once, however many read it; the first of them has influenced it least.
    once = {case.study: case for case in reversed(known) if not case.flattered}
    return Dashboard(
        cases=len({case.study for case in cases}),
        decided=len({case.study for case in cases if case.outcome is not None}),
        readings=len(cases),
        decided_readings=sum(case.outcome is not None for case in cases),
        blind_agreement=_share(told, lambda case: case.blind == case.top),
        blind_unnamed=len(answered) - len(named),
        blind_flattered=len(named) - len(told),
        agreement=_share(settled, lambda case: case.agreed),
        unnamed=len(seen) - len(settled),
        persuaded=_share(differed, lambda case: case.agreed),
        accuracy=_share(list(once.values()), lambda case: case.top == references[case.study]),
        readers_accuracy=_share(known, lambda case: case.blind == references[case.study]),
        reliability=_reliability(told),
        by_disease=_by(told, lambda case: str(case.blind)),
        by_week=_by(told, lambda case: week_of(case.day)),
        minutes_to_read=_minutes((started, read) for started, read, _ in spans),
        minutes_to_decide=_minutes((read, decided) for _, read, decided in spans),
        served=_served(cases),
    )


def with_unseen(cases: Iterable[ReadCase], answers: Mapping[str, Told]) -> list[ReadCase]:
    """Add what the model says about cases whose readers were not shown it: they count, but persuaded nobody."""
    found = []
    for case in cases:
        told = answers.get(case.study, _NOTHING)
        unseen = replace(case, answer=told.probabilities, flattered=told.support_patient, seen=False)
        found.append(case if case.answer else unseen)
    return found


def week_of(moment: str) -> str:
    """Return the ISO week of an ISO date or time."""
    return "{}-W{:02d}".format(*datetime.fromisoformat(moment).isocalendar()[:2])


def _served(cases: Sequence[ReadCase]) -> list[Served]:
    days: dict[tuple[str, int], list[tuple[str, str]]] = defaultdict(list)
    for case in cases:
        for which, span in case.served.items():
            days[which].append(span)
    found = [
        Served(*which, len(spans), min(first for first, _ in spans), max(last for _, last in spans))
        for which, spans in days.items()
    ]
    return sorted(found, key=lambda one: (one.first, one.last, one.bundle, one.support_version))


def _told(answers: Mapping[tuple[int, str], Told], said: Opinion | None, study: str) -> Told:
    return _NOTHING if said is None or said.run is None else answers.get((said.run, study), _NOTHING)


def _top(answer: Mapping[str, float]) -> str | None:
    return ranked(answer)[0][0] if answer else None


def _share(cases: Sequence[ReadCase], right: Callable[[ReadCase], bool]) -> Share:
    """Count; what two readers say about one case, or one about two studies of a patient, is no independent evidence."""
    if not cases:
        return Share(0, 0)
    counted = [right(case) for case in cases]
    patients = [case.patient or case.study for case in cases]
    return Share(sum(counted), len(cases), len(set(patients)), effective_number(counted, patients))


def _by(cases: Sequence[ReadCase], name: Callable[[ReadCase], str]) -> list[tuple[str, Share]]:
    groups: dict[str, list[ReadCase]] = defaultdict(list)
    for case in cases:
        groups[name(case)].append(case)
    return [(key, _share(part, lambda case: case.blind == case.top)) for key, part in sorted(groups.items())]


def _reliability(cases: Sequence[ReadCase]) -> list[tuple[float, Share]]:
    bins: dict[int, list[ReadCase]] = defaultdict(list)
    for case in cases:
        bins[min(int(max(case.answer.values()) * _BINS), _BINS - 1)].append(case)
    found = [
        (
            sum(max(case.answer.values()) for case in part) / len(part),
            _share(part, lambda case: case.blind == case.top),
        )
        for _, part in sorted(bins.items())
    ]
    return [(confidence, share) for confidence, share in found if share.enough]


def _minutes(pairs: Iterable[tuple[str | None, str | None]]) -> float | None:
    spent = [
        (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds() / 60
        for start, end in pairs
        if start is not None and end is not None
    ]
    return median(spent) if len(spent) >= FEWEST_FOR_A_SHARE else None
