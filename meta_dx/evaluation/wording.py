"""Figures in words: percentages, intervals, names of methods, and the headline."""

from __future__ import annotations

import math
from typing import get_args

from meta_dx.evaluation.comparison import Comparison, Difference
from meta_dx.evaluation.episodic import EpisodicResult
from meta_dx.evaluation.figures import Ends
from meta_dx.learners.options import LearnerName

#: What limits every evaluation of this kind.
LIMITS = (
    "Only diseases that were offered can be named: a patient with any other disease, or with none, gets "
    "a wrong answer that looks like a right one.",
    "Every case has one diagnosis here; patients with several were left out.",
    "The cases come from the same archive as the training data. Another hospital, device or patient mix "
    "needs its own evaluation.",
    "A figure over few patients or few diseases is uncertain, also where it is high: read the interval, "
    "not the number.",
)
#: The words of the report, explained.
MEANING = (
    ("Episode", "One test: a few diseases, some confirmed cases of each, and other patients to be named."),
    (
        "Accuracy",
        "Share of cases named rightly, first per disease, then averaged: every disease counts the same.",
    ),
    (
        "95 % interval",
        "From drawing diseases, then their patients, again and again (bootstrap): how the figure would "
        "move with others.",
    ),
    (
        "AUROC",
        "Chance that a case of a disease gets a higher probability of it than a case of another disease; "
        "0.5 is guessing.",
    ),
    (
        "Calibration error",
        "Mean gap between how sure the model was and how often it was right (ECE, 15 bins, diseases "
        "weighing the same).",
    ),
    (
        "Doubt",
        "By entropy: how evenly the probability is spread over the diseases. By missing knowledge (epistemic "
        "uncertainty): how much the answer would move if the model knew the diseases better, which more "
        "confirmed cases would bring.",
    ),
    ("Log loss", "Penalty for probability on wrong answers; lower is better."),
)

_LABELS = {
    "prototypical": "Prototypical Networks",
    "simpleshot": "SimpleShot (CL2N)",
    "logistic": "Logistic regression",
    "ridge": "Ridge regression",
    "cosine": "Cosine classifier (Baseline++)",
    "anp": "Attentive Neural Process",
    "leo": "LEO",
    "mann": "Memory-augmented network",
    "shortcut": "Border and header only",
}
#: Heads that were trained on episodes; the others are plain.
META_LEARNED = frozenset(get_args(LearnerName))
_DASH = "–"
_THIN = "\u202f"  # narrow space that does not break
_MINUS = "\u2212"


def method_name(name: str) -> str:
    """Return a method's name for people."""
    return _LABELS.get(name, name)


def percent(value: float | None, digits: int = 1) -> str:
    """Return a fraction in percent without the sign (``71.2``); a dash for what could not be computed."""
    if value is None or math.isnan(value):
        return _DASH
    return f"{100 * value:.{digits}f}"


def interval(ends: Ends | None, digits: int = 1) -> str:
    """Return an interval as ``"65.0–77.1"`` (percent)."""
    if ends is None or math.isnan(ends[0]):
        return _DASH
    return f"{percent(ends[0], digits)}{_DASH}{percent(ends[1], digits)}"


def points(value: float) -> str:
    """Return a signed difference in percentage points, ``"+3.1"``."""
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", _MINUS)


def points_interval(ends: Ends) -> str:
    """Return the interval of a difference, ``"+1.2 to +5.0"``."""
    return f"{points(ends[0])} to {points(ends[1])}"


def decimal(value: float | None, digits: int = 3) -> str:
    """Return a number such as an AUROC; a dash for what could not be computed."""
    if value is None or math.isnan(value):
        return _DASH
    return f"{value:.{digits}f}"


def decimals(ends: Ends | None, digits: int = 3) -> str:
    """Return an interval as ``"0.612–0.701"``; empty for what could not be computed."""
    if ends is None or math.isnan(ends[0]):
        return ""
    return f"{ends[0]:.{digits}f}–{ends[1]:.{digits}f}"


def in_words(number: int) -> str:
    """Return small numbers as words."""
    words = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return words[number] if number < len(words) else str(number)


def shots(number: int) -> str:
    """Return ``"one confirmed case"``, ``"five confirmed cases"``, …."""
    return f"{in_words(number)} confirmed case{'' if number == 1 else 's'}"


def diseases(number: int) -> str:
    """Return ``"1 disease has"``, ``"2 diseases have"``, …."""
    return "1 disease has" if number == 1 else f"{number} diseases have"


def headline(results: tuple[EpisodicResult, ...]) -> str:
    """Say in one honest sentence who won.

    Parameters
    ----------
    results : tuple of EpisodicResult
        Fewest shots first; the last one is spoken of.

    Returns
    -------
    str
        Names the served head, its accuracy with interval, and whether it is better than, level with or worse
        than the best baseline by the paired interval.
    """
    result = results[-1]
    comparison = result.comparison
    served = comparison.served
    return (
        f"Given {shots(result.shots)} of each of {in_words(result.ways)} diseases that it had never seen, "
        f"the model served ({method_name(comparison.serving)}) names the right one in "
        f"{percent(served.accuracy)}{_THIN}% of cases (95{_THIN}% interval {interval(served.ci95)}; "
        f"guessing {percent(result.chance, 0)}{_THIN}%); {verdict(comparison.against_best)}."
    )


def learner_sentences(comparison: Comparison) -> list[str]:
    """Say how each meta-learned head stands against the served one, where a plain head is served.

    Empty where the served head is meta-learned itself: the headline compares it with the plain ones.
    """
    if comparison.serving in META_LEARNED:
        return []
    return [
        f"The meta-learned head ({method_name(gap.method)}: "
        f"{percent(comparison.methods[gap.method].accuracy)} %) is {gap.verdict}"
        f"{' with' if gap.verdict == 'level' else ' than'} the plain head that is served "
        f"({points(gap.estimate)} points, interval {points_interval(gap.ci95)})."
        for gap in comparison.against_served
        if gap.method in META_LEARNED
    ]


def doubt_sentence(result: EpisodicResult) -> str:
    """Say which fields of its predictions the served head fills, and how well its doubt tells."""
    serving = result.comparison.serving
    found = result.doubt[serving]
    if found.epistemic_auroc is None and found.openset_auroc is None:
        return (
            f"The served model ({method_name(serving)}) gives one answer and not a range of answers: in its "
            "predictions “epistemic”, “aleatoric” and “interval” stay empty, and so does “evidence” unless it "
            "weighs its confirmed cases. Its entropy is there."
        )
    return (
        f"The served model ({method_name(serving)}) gives every prediction its missing knowledge (“epistemic”), the "
        "doubt that more cases would not remove (“aleatoric”) and an interval for each disease."
    )


def shortcut_sentence(comparison: Comparison, chance: float) -> str:
    """Say whether border and header suffice to beat guessing; empty if that was not asked."""
    found = comparison.methods.get("shortcut")
    if found is None:
        return ""
    scored = f"Border and header alone name {percent(found.accuracy)} % rightly ({interval(found.ci95)})"
    if found.ci95[0] > chance:
        return (
            f"{scored}, more than guessing ({percent(chance)} %): part of what any method scores here may "
            "come from how the pictures were made and not from the disease."
        )
    return f"{scored}, not surely more than guessing ({percent(chance)} %): no shortcut was found there."


def verdict(gap: Difference) -> str:
    """Say how the served head stands against the best baseline."""
    best = method_name(gap.against)
    measured = f"({points(gap.estimate)} points, interval {points_interval(gap.ci95)})"
    if gap.verdict == "better":
        return f"it is better than the best baseline, {best} {measured}"
    if gap.verdict == "worse":
        return f"it is worse than the best baseline, {best} {measured}"
    return f"it is level with the best baseline, {best} {measured}"
