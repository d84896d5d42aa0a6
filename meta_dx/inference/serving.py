"""What a bundle offers in use: which diseases, how many confirmed cases of each, and with which prior."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from meta_dx.errors import MetaDxError
from meta_dx.records.support import SupportCase


@dataclass(frozen=True)
class ServeOptions:
    """Section ``[serve]``: which diseases predictions choose between and on which cases they rest.

    Parameters
    ----------
    offer : {"rare", "all", "list"}
        Rare diseases of the split, every disease of the split, or those named in ``diseases``.
    diseases : tuple of str
        Disease codes offered when ``offer = "list"``.
    modalities : tuple of str
        Offer only diseases of which a study of one of these modalities is confirmed; empty means any.
    body_parts : tuple of str
        The same for body parts.
    max_shots : int
        Cap on K, the confirmed patients of each disease that a prediction rests on; at least 1.
    choose_support : {"newest", "spread"}
        Which patients when a disease has more than the cap: the latest confirmed, or a fixed random draw.
    prior : {"uniform", "support"}
        Class prior: every offered disease alike, or as frequent as its confirmed patients, those above the cap
        included.
    """

    offer: Literal["rare", "all", "list"] = "rare"
    diseases: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    max_shots: int = 10
    choose_support: Literal["newest", "spread"] = "spread"
    prior: Literal["uniform", "support"] = "uniform"

    def __post_init__(self) -> None:
        if self.max_shots < 1:
            raise MetaDxError(
                "bad_value", f"max_shots is {self.max_shots}: allowed is a whole number of at least 1."
            )
        if self.offer == "list" and not self.diseases:
            raise MetaDxError(
                "bad_value", "offer is 'list' but diseases is empty: name the disease codes to offer."
            )


def offered_diseases(
    options: ServeOptions,
    roles: Mapping[str, str],
    described: Mapping[str, Iterable[tuple[str, str]]],
) -> list[str]:
    """List the diseases that predictions choose between.

    Parameters
    ----------
    options : ServeOptions
        The rule.
    roles : mapping of str to str
        Disease code → role in the frozen split (``"common"``, ``"validation"``, ``"rare"``).
    described : mapping of str to iterable of (modality, body part)
        What the confirmed studies of each disease are; diseases without any are not offered.

    Returns
    -------
    list of str
        Sorted codes.

    Raises
    ------
    MetaDxError
        ``unknown_disease`` when a listed code has no confirmed study.
    """
    if options.offer == "list":
        missing = sorted(set(options.diseases) - set(described))
        if missing:
            raise MetaDxError(
                "unknown_disease",
                f"[serve] diseases names {', '.join(missing)}, of which no confirmed study is known: "
                "add cases with 'meta-dx support add' or take the code out.",
            )
        codes = set(options.diseases)
    elif options.offer == "all":
        codes = set(described)
    else:
        # A disease that a person added by hand has no role in the split: it is new, and therefore offered.
        codes = {code for code in described if roles.get(code, "rare") == "rare"}
    if options.modalities:
        codes = {c for c in codes if any(modality in options.modalities for modality, _ in described[c])}
    if options.body_parts:
        codes = {c for c in codes if any(part in options.body_parts for _, part in described[c])}
    return sorted(codes)


def choose_cases(cases: Sequence[SupportCase], options: ServeOptions) -> list[SupportCase]:
    """Choose at most ``max_shots`` patients of every disease, one study each.

    Parameters
    ----------
    cases : sequence of SupportCase
        All confirmed cases of the offered diseases.
    options : ServeOptions
        Cap and rule.

    Returns
    -------
    list of SupportCase
        Sorted by disease and study; the same cases whatever the order of the input.
    """
    by_disease: dict[str, list[SupportCase]] = defaultdict(list)
    for case in cases:
        by_disease[case.code].append(case)
    chosen: list[SupportCase] = []
    for code in sorted(by_disease):
        ranked = sorted(by_disease[code], key=lambda case: _rank(case, options.choose_support))
        one_each: dict[str, SupportCase] = {}
        for case in ranked:
            one_each.setdefault(case.patient, case)
        chosen.extend(sorted(list(one_each.values())[: options.max_shots], key=lambda case: case.study))
    return chosen


def _rank(case: SupportCase, rule: str) -> tuple[str, str]:
    drawn = hashlib.sha256(f"{case.code}/{case.study}".encode()).hexdigest()
    if rule == "newest":
        # Newest first: complement the digits of the date, so that one ascending sort serves both parts.
        newest = "".join(chr(255 - ord(c)) for c in str(case.confirmed_on or ""))
        return (newest or "\uffff", drawn)
    return ("", drawn)


def class_prior(
    codes: Sequence[str], patients: Mapping[str, Collection[str]], options: ServeOptions
) -> npt.NDArray[np.float64]:
    """Return the prior probability of each offered disease, shape (N,), summing to 1.

    ``patients`` are the confirmed patients of each disease, each once, whether or not answers rest on them.
    """
    if options.prior == "uniform":
        return np.full(len(codes), 1.0 / len(codes))
    counts = np.array([len(patients[code]) for code in codes], dtype=np.float64)
    total: npt.NDArray[np.float64] = counts / counts.sum()
    return total
