"""What the pages say about a case and about the model's doubt, in words."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

from meta_dx.records.accounts import Account
from meta_dx.records.cases import BANDS
from meta_dx.records.opinions import Diagnosis
from meta_dx.records.predictions import ranked
from meta_dx.records.schema import CaseRow, ReadingRow
from meta_dx.review.desk import Answer

_CLOSE = 0.15  # difference of two probabilities that is called close
_SURE = 0.9  # probability from which a disease leaves little doubt
_FAR = 0.95  # share of the confirmed cases that lie nearer to one another, from which a case is called far
_SHOWN = 6


@dataclass(frozen=True)
class Bar:
    """A disease's probability, and its 95 % credible interval where the head gives one."""

    name: str
    code: str
    probability: float
    low: float | None
    high: float | None

    @property
    def value(self) -> str:
        """The probability in percent; what is possible is never called 0, what is not certain never 100."""
        if 0 < self.probability < 0.005:
            return "< 1 %"
        if 0.995 <= self.probability < 1:
            return "> 99 %"
        return f"{100 * self.probability:.0f} %"

    @property
    def ends(self) -> str:
        """The interval in percent, with as many digits (two at most) as tell its ends apart; empty without one."""
        if self.low is None or self.high is None:
            return ""
        low, high = 100 * self.low, 100 * self.high
        if high < 0.05:
            return "under 0.1"
        digits = next((d for d in range(2) if round(low, d) != round(high, d)), 2)
        return f"{low:.{digits}f} to {high:.{digits}f}"


@dataclass(frozen=True)
class Evidence:
    """A confirmed case that an answer rests on."""

    image: str
    frame: int
    disease: str
    weight: float
    basis: str
    confirmed_by: str


def short(study: str) -> str:
    """Return how a case is called on the pages: the last eight digits of its surrogate."""
    digits = study.rsplit(".", 1)[-1][-8:]
    return f"{digits[:4]} {digits[4:]}" if len(digits) == 8 else digits


def case_words(case: CaseRow, reading: ReadingRow | None = None) -> dict[str, Any]:
    """Return what a row of the worklist, or the head of a case, shows; no identity, and nothing of the model."""
    age = "" if case.age_years is None else f"{int(case.age_years)} y"
    return {
        "study": case.study,
        "number": short(case.study),
        "band": BANDS[case.band],
        "modality": case.modality,
        "body_part": (case.body_part or "").title(),
        "person": " ".join(part for part in (case.sex or "", age) if part),
        "images": case.images,
        "series": case.series,
        "stage": reading.stage if reading is not None else "unread",
        "draft": reading is not None and bool(reading.draft),
    }


def bars(answer: Answer, names: Mapping[str, str], own: Container[str] = ()) -> list[Bar]:
    """Return the most probable diseases, most probable first, and those that the reader has named themselves."""
    said = answer.answer
    found = []
    for place, (code, probability) in enumerate(ranked(said.probabilities)):
        if place >= _SHOWN and code not in own:
            continue
        low, high = (said.interval or {}).get(code, (None, None))
        found.append(Bar(names.get(code) or code, code, probability, low, high))
    return found


def doubt(answer: Answer, names: Mapping[str, str]) -> str:
    """Say where the model's doubt comes from.

    That a case lies far from every confirmed one is measured: hardly any of those lies as far from its own nearest.
    The rest is a rule of ours: two diseases whose probabilities lie within 0.15 are a doubt *between* them, one of 0.9
    leaves little doubt; else the larger part of the entropy decides, the epistemic one (few confirmed cases) or the
    aleatoric one.
    """
    said = answer.answer
    measured = _distance(said.remoteness)
    ordered = ranked(said.probabilities)
    if len(ordered) > 1 and ordered[0][1] - ordered[1][1] < _CLOSE:
        first, second = (code for code, _ in ordered[:2])
        both = {first, second} <= {case.code for case in said.nearest}
        beside = ", of each of which a case is among the nearest" if both else ""
        rule = f"Mostly between {names.get(first) or first} and {names.get(second) or second}{beside}."
    elif said.epistemic is None or said.aleatoric is None:
        rule = "" if measured else "This head does not tell where its doubt comes from."
    elif ordered[0][1] >= _SURE:
        rule = "Little doubt between the diseases that are offered."
    elif said.epistemic >= said.aleatoric:
        rule = "Mostly from too few confirmed cases."
    else:
        rule = "Spread over several diseases."
    return " ".join(part for part in (measured, rule) if part)


def _distance(remoteness: float | None) -> str:
    if remoteness is None:
        return ""
    share = f"{100 * remoteness:.0f} % of the confirmed cases have a nearer neighbour among them than this case has"
    return f"Far from every confirmed case: {share}." if remoteness >= _FAR else f"{share}."


def evidence(answer: Answer, names: Mapping[str, str], most: int = 6) -> list[Evidence]:
    """Return the confirmed cases that carried the answer, heaviest first; empty where the head weighs none.

    What weighs 0.00 is left out where anything weighs more.
    """
    found = []
    told = answer.answer.evidence or ()
    carried = [case for case in told if round(case.weight, 2) > 0] or told
    for case in carried[:most]:
        known = answer.cases.get(case.study)
        found.append(
            Evidence(
                case.image,
                case.frame,
                names.get(case.code) or case.code,
                case.weight,
                (known.basis if known else None) or "basis not stated",
                (known.confirmed_by if known else None) or "the diagnosis table",
            )
        )
    return found


def named(diseases: list[Diagnosis]) -> dict[str, str]:
    """Return code → name."""
    return {disease.code: disease.meaning or disease.code for disease in diseases}


def rights_of(account: Account) -> dict[str, bool]:
    """Return what the navigation shows."""
    return {
        "read": account.may("read"),
        "lead": account.may("lead"),
        "accounts": account.may("accounts"),
        "audit": account.may("audit"),
        "identity": account.may("identity"),
        "adjudicate": account.may("adjudicate"),
        "teach": account.may("teach"),
        "store": account.may("store"),
    }
