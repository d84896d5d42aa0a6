"""From what a reader typed to an opinion."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from meta_dx.errors import MetaDxError
from meta_dx.records.coding_schemes import designator_of, one_line
from meta_dx.records.opinions import BlindOpinion, Decision, Diagnosis

RANKS = 3
_BESIDE_AN_ANSWER = {
    "accept": ("Accept", "It is {top}"),
    "override": ("Override", "It is something else"),
    "supplemented": ("Supplement", "True, but there is more"),
}
_AFFIRMING = ("accept", "supplemented")
_WITHOUT_AN_ANSWER = {"own": ("Decide", "My own diagnosis")}
_ANOTHER_ANSWER = (
    "The model's answer has changed since you chose and typed this: read what stands above now, check every field, and "
    "then decide."
)
_ALWAYS = {
    "cannot_tell": ("Cannot tell", "The images do not allow it"),
    "bad_image": ("Bad image", "Not fit for reading"),
}


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
    if not one_line(words):  # nor would a report have a code
        return None
    disease = _offered(words, known)
    if disease is not None:
        if meaning.strip() and not _called(disease, scheme, meaning):
            of = f" of the scheme {disease.scheme}" if disease.scheme else ""
            raise MetaDxError(
                "unknown_disease",
                f"'{words[:80]}' is in the list already, as {label(disease)}{of}: leave scheme and name empty, or give "
                "the new disease another code.",
            )
        return disease
    # Where a report takes it, a code means nothing without its scheme.
    if meaning.strip() and not scheme.strip():
        raise MetaDxError(
            "unknown_disease",
            f"Say of which coding scheme the code '{words[:80]}' is, such as SCT, I10 or RADLEX; a scheme of your own "
            "has a name that begins with 99.",
        )
    if meaning.strip():
        return Diagnosis(words, designator_of(scheme), meaning.strip())
    raise MetaDxError(
        "unknown_disease", f"'{words[:80]}' is not among the diseases: choose one, or name a new one."
    )


def _offered(typed: str, known: Sequence[Diagnosis]) -> Diagnosis | None:
    """Return the disease of a list that somebody means."""
    wanted = typed.strip().casefold()
    names = ((one, (one.code, one.meaning, label(one))) for one in known)
    return next((one for one, called in names if wanted in [name.casefold() for name in called]), None)


def _called(disease: Diagnosis, scheme: str, meaning: str) -> bool:
    """Tell whether a disease is called so already, and is of this scheme where one is given."""
    if scheme.strip() and disease.scheme and designator_of(scheme) != designator_of(disease.scheme):
        return False
    return one_line(meaning).casefold() == one_line(disease.meaning).casefold()


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
    new = form.get("new_scheme", ""), form.get("new_meaning", "")
    ranks = [form.get(f"rank{n}", "") for n in range(1, RANKS + 1)]
    # Scheme and name are about the one that is new; where none is, they contradict the list.
    anew = [one for one in ranks if one_line(one) and _offered(one, known) is None]
    ranked = [diagnosis_of(one, known, *(new if one in anew or not anew else ())) for one in ranks]
    chosen = tuple(disease for disease in ranked if disease is not None)
    if len([disease for disease in chosen if disease not in known]) > 1:
        raise MetaDxError(
            "bad_opinion", "One scheme and name stand for one new disease: name only one that is new."
        )
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


def verdicts(top: str) -> dict[str, tuple[str, str]]:
    """Return the verdicts that a form offers, each with its name and what it means.

    Parameters
    ----------
    top : str
        What the model says, in words; empty where no answer is shown.
    """
    first = _BESIDE_AN_ANSWER if top else _WITHOUT_AN_ANSWER
    return {value: (name, words.format(top=top)) for value, (name, words) in {**first, **_ALWAYS}.items()}


def brought_back(draft: Mapping[str, str], mark: str, offered: Container[str]) -> tuple[dict[str, str], str]:
    """Return what of a draft of a decision stands in the form again.

    Beside another answer than the one it was made for everything stands there again but a verdict that means something
    else now: to accept or to supplement is to say that the new answer is true.

    Parameters
    ----------
    draft : mapping of str to str
        The fields that were typed; ``answer`` is the mark of the answer that stood beside them.
    mark : str
        The mark of the answer that stands beside them now; empty where none is shown.
    offered : container of str
        The verdicts that the form offers now.

    Returns
    -------
    fields : dict of str to str
        What the form shows.
    notice : str
        That the answer is another one, and what has become of the verdict; empty where it is the same.
    """
    fields = dict(draft)
    if fields.get("answer", "") == mark:
        return fields, ""
    verdict, lost = fields.get("verdict", ""), ""
    name = {**_BESIDE_AN_ANSWER, **_WITHOUT_AN_ANSWER, **_ALWAYS}.get(verdict, ("", ""))[0]
    if verdict in _AFFIRMING or verdict not in offered:
        fields.pop("verdict", None)
        lost = f" '{name}' is not chosen any more: it was about the earlier answer." if name else ""
    if "answer" not in fields:  # typed before any answer was shown
        return fields, ""
    return fields, f"{_ANOTHER_ANSWER}{lost}"


def _percent(typed: str, needed: bool) -> int:
    if not needed:
        return 0
    if not (typed.isascii() and typed.isdigit() and len(typed) <= 3):
        raise MetaDxError("bad_opinion", "Say how confident you are, from 0 to 100 percent.")
    return int(typed)
