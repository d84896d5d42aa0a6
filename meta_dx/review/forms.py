"""From what a reader typed to an opinion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from meta_dx.errors import MetaDxError
from meta_dx.records.opinions import BlindOpinion, Decision, Diagnosis

RANKS = 3


def diagnosis_of(
    typed: str, known: Sequence[Diagnosis], scheme: str = "", meaning: str = ""
) -> Diagnosis | None:
    """Return the disease that a field names.

    Parameters
    ----------
    typed : str
        A code, a name, or ``"name (code)"`` as the field's list offers it; letter case does not count.
    known : sequence of Diagnosis
        The diseases there are.
    scheme, meaning : str
        For a code that is not among them: its scheme and name, which a new disease needs.

    Returns
    -------
    Diagnosis or None
        None where nothing was typed.

    Raises
    ------
    MetaDxError
        ``unknown_disease``.
    """
    words = typed.strip()
    if not words:
        return None
    wanted = words.casefold()
    for disease in known:
        if wanted in (disease.code.casefold(), disease.meaning.casefold(), label(disease).casefold()):
            return disease
    if meaning.strip():
        return Diagnosis(words, scheme.strip(), meaning.strip())
    raise MetaDxError(
        "unknown_disease", f"'{words[:80]}' is not among the diseases: choose one, or name a new one."
    )


def label(disease: Diagnosis) -> str:
    """Return how a field's list offers a disease."""
    return f"{disease.meaning} ({disease.code})" if disease.meaning else disease.code


def blind_of(form: Mapping[str, str], known: Sequence[Diagnosis]) -> BlindOpinion:
    """Return the blind opinion that a form holds.

    Raises
    ------
    MetaDxError
        ``unknown_disease``, ``bad_opinion`` or ``opinion_missing``.
    """
    ranked = [diagnosis_of(form.get(f"rank{n}", ""), known) for n in range(1, RANKS + 1)]
    chosen = tuple(disease for disease in ranked if disease is not None)
    if not chosen and not form.get("cannot_tell"):
        raise MetaDxError("opinion_missing", "Name at least one diagnosis, or say that you cannot tell.")
    if chosen and form.get("cannot_tell"):
        raise MetaDxError("bad_opinion", "Either name diagnoses or say that you cannot tell, not both.")
    return BlindOpinion(
        chosen, _percent(form.get("confidence", ""), bool(chosen)), form.get("text", "").strip()
    )


def decision_of(form: Mapping[str, str], known: Sequence[Diagnosis], top: Diagnosis | None) -> Decision:
    """Return the decision that a form holds.

    Parameters
    ----------
    form : mapping of str to str
        ``verdict``, ``diagnosis``, ``new_scheme``, ``new_meaning``, ``reason``, ``text``.
    known : sequence of Diagnosis
        The diseases there are.
    top : Diagnosis, optional
        What the model says, which ``"accept"`` accepts; None where nothing was shown.

    Raises
    ------
    MetaDxError
        ``unknown_disease`` or ``bad_opinion``.
    """
    verdict = form.get("verdict", "")
    if not verdict:
        raise MetaDxError("bad_opinion", "Say what you decide.")
    if top is None and verdict in ("accept", "override", "supplemented"):
        raise MetaDxError("bad_opinion", "No answer of the model was shown: give your own diagnosis.")
    if verdict == "accept":
        diagnosis = top
    elif verdict in ("override", "supplemented", "own"):
        typed = form.get("diagnosis", "")
        diagnosis = diagnosis_of(typed, known, form.get("new_scheme", ""), form.get("new_meaning", ""))
    else:
        diagnosis = None
    return Decision(verdict, diagnosis, form.get("reason", ""), form.get("text", "").strip())  # type: ignore[arg-type]


def _percent(typed: str, needed: bool) -> int:
    if not needed:
        return 0
    if not typed.isdigit():
        raise MetaDxError("bad_opinion", "Say how confident you are, from 0 to 100 percent.")
    return int(typed)
