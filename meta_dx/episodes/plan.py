"""Which studies an episode holds: seeded, patient-disjoint, reproducible in any language.

Everything is ordered by the SHA-256 of a text that names the seed, the episode and the thing, never by a
random generator, so that episode 731 of seed 0 is the same on every machine, whatever the order of the input
rows and whichever episodes were drawn before. ``docs/sampling.md`` has the algorithm in numbered steps;
``tests/episodes/golden_episodes.json`` has 20 episodes to check another implementation with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from meta_dx.cohort.examples import Examples
from meta_dx.errors import MetaDxError

Rows = npt.NDArray[np.int64]
#: A fixed number, or the lowest and highest of a range from which each episode draws its own.
Count = int | tuple[int, int]


@dataclass(frozen=True)
class EpisodePlan:
    """One few-shot task, as rows of the examples that it was drawn from.

    Parameters
    ----------
    index : int
        Number of the episode under its seed.
    classes : tuple of str, length N
        Disease codes; class n of the episode is ``classes[n]``.
    support, query : tuple of ndarray of int64, length N
        Rows of each class, in the order of the draw.
    """

    index: int
    classes: tuple[str, ...]
    support: tuple[Rows, ...]
    query: tuple[Rows, ...]

    @property
    def rows(self) -> Rows:
        """Every row of the episode: the support of all classes, then the queries of all classes."""
        return np.concatenate([*self.support, *self.query])


def ordering_key(seed: int, index: int, what: str, identifier: str) -> str:
    """Return the hexadecimal SHA-256 by which everything in an episode is ordered.

    Parameters
    ----------
    seed, index : int
        Seed of the series of episodes, and number of the episode in it.
    what : str
        ``"class"``, ``"patient"``, ``"study"``, ``"image"`` or ``"draw"``.
    identifier : str
        Disease code, patient, study, or name of the number that is drawn.

    Returns
    -------
    str
        64 lower-case hexadecimal digits.
    """
    return hashlib.sha256(f"{seed}/{index}/{what}/{identifier}".encode()).hexdigest()


def ordering(seed: int, index: int, what: str) -> Callable[[str], bytes]:
    """Return :func:`ordering_key` of one kind of thing, as 32 bytes, for many identifiers one after the other."""
    begun = hashlib.sha256(f"{seed}/{index}/{what}/".encode())

    def key(identifier: str) -> bytes:
        digest = begun.copy()  # to begin anew for each would take longer than to hash so short a text
        digest.update(identifier.encode())
        return digest.digest()

    return key


def in_order(seed: int, index: int, what: str, identifiers: Iterable[str]) -> list[str]:
    """Sort identifiers by :func:`ordering_key`, which takes the same arguments, for one after the other."""
    return sorted(identifiers, key=ordering(seed, index, what))


def eligible_diseases(examples: Examples, shots: int) -> tuple[list[str], dict[str, int]]:
    """Tell which diseases have enough patients for episodes of this many shots.

    A disease needs ``shots + 2`` patients, so that at least two remain as queries.

    Parameters
    ----------
    examples : Examples
        Labelled examples.
    shots : int
        Support patients per class.

    Returns
    -------
    eligible : list of str
        Sorted codes.
    left_out : dict of str to int
        The other codes, with the number of their patients.
    """
    counts = examples.patients_per_disease()
    eligible = [code for code, patients in counts.items() if patients >= shots + 2]
    return eligible, {code: patients for code, patients in counts.items() if patients < shots + 2}


def most_ways(examples: Examples, shots: int, ancestors: Mapping[str, Collection[str]] | None = None) -> int:
    """Return how many classes every episode of this many shots can have, as far as patients are not shared.

    Parameters
    ----------
    examples, shots
        As in :func:`eligible_diseases`.
    ancestors : mapping of str to collection of str, optional
        Diseases above each code: those with an eligible disease below them do not count, as they never meet it.

    Returns
    -------
    int
    """
    return len(_narrowest(eligible_diseases(examples, shots)[0], ancestors or {}))


class EpisodeSampler:
    """Draws the episodes of one seed from labelled examples; any episode can be asked for directly.

    Parameters
    ----------
    examples : Examples
        Labelled examples, each study once; rows without a code are never drawn.
    ways : int or (int, int)
        Classes in an episode. From a range, each episode draws its own number and is content with fewer
        classes, down to the lower end, where patients run out.
    shots : int or (int, int)
        Support patients per class; from a range, each episode draws its own number.
    queries : int
        Query patients per class at most; all that remain where fewer remain, at least one.
    seed : int
        Seed of the series.
    classes : collection of str, optional
        Only these diseases take part.
    ancestors : mapping of str to collection of str, optional
        The ancestors of each code; an episode never holds a disease together with one of its ancestors.

    Raises
    ------
    MetaDxError
        ``bad_episode_shape`` for impossible numbers, ``too_few_diseases`` when no episode can be drawn.
    """

    def __init__(
        self,
        examples: Examples,
        ways: Count,
        shots: Count,
        queries: int,
        seed: int,
        *,
        classes: Collection[str] | None = None,
        ancestors: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self.ways, self.shots = _bounds(ways, "ways", 2), _bounds(shots, "shots", 1)
        if queries < 1:
            raise MetaDxError(
                "bad_episode_shape", f"queries is {queries}: an episode needs at least 1 query a class."
            )
        self.queries, self.seed = queries, seed
        self._ancestors = {code: frozenset(above) for code, above in (ancestors or {}).items()}
        self._studies = _studies_by_class(examples, classes)
        #: Number of patients of each disease.
        self.patients = {code: len(by_patient) for code, by_patient in sorted(self._studies.items())}
        if len(_narrowest(self._eligible(self.shots[1]), self._ancestors)) < self.ways[0]:
            raise self._too_few(self.ways[0], self.shots[1])

    @property
    def eligible(self) -> list[str]:
        """Sorted codes of the diseases that can take part at every number of shots."""
        return self._eligible(self.shots[1])

    @property
    def left_out(self) -> dict[str, int]:
        """Diseases with fewer than shots + 2 patients, and how many they have."""
        return {code: count for code, count in self.patients.items() if count < self.shots[1] + 2}

    def plan(self, index: int) -> EpisodePlan:
        """Draw one episode.

        Parameters
        ----------
        index : int
            Number of the episode, from 0.

        Returns
        -------
        EpisodePlan

        Raises
        ------
        MetaDxError
            ``too_few_diseases`` when patients shared between diseases leave too few classes.
        """
        ways, shots = self._draw(index, "ways", self.ways), self._draw(index, "shots", self.shots)
        order = in_order(self.seed, index, "class", self._eligible(shots))
        while True:
            plan, skipped = self._taken(index, order, ways, shots)
            if len(plan.classes) >= min(ways, self.ways[0]):
                return plan
            blocking = self._blocking(plan.classes, skipped)
            if blocking is None:
                raise self._too_few(self.ways[0], shots)
            order.remove(blocking)

    def plans(self, count: int, start: int = 0) -> Iterator[EpisodePlan]:
        """Draw the episodes ``start`` to ``start + count - 1``."""
        return (self.plan(index) for index in range(start, start + count))

    def _taken(
        self, index: int, order: Sequence[str], ways: int, shots: int
    ) -> tuple[EpisodePlan, list[str]]:
        """Take diseases in this order; returns the episode, and the diseases skipped for one related to them."""
        taken: list[str] = []
        skipped: list[str] = []
        used: set[str] = set()
        support: list[Rows] = []
        query: list[Rows] = []
        for code in order:
            if len(taken) == ways:
                break
            if any(self._related(code, other) for other in taken):
                skipped.append(code)
                continue
            free = [patient for patient in self._studies[code] if patient not in used]
            if len(free) < shots + 1:
                continue
            chosen = in_order(self.seed, index, "patient", free)[: shots + self.queries]
            rows = np.array([self._study_row(index, code, patient) for patient in chosen], dtype=np.int64)
            taken.append(code)
            used.update(chosen)
            support.append(rows[:shots])
            query.append(rows[shots:])
        return EpisodePlan(index, tuple(taken), tuple(support), tuple(query)), skipped

    def _blocking(self, taken: Sequence[str], skipped: Sequence[str]) -> str | None:
        """Return the taken disease above most of the skipped ones, of several the first; None where there is none."""
        below = [sum(code in self._ancestors.get(other, ()) for other in skipped) for code in taken]
        return taken[below.index(max(below))] if any(below) else None

    def _eligible(self, shots: int) -> list[str]:
        return [code for code, count in self.patients.items() if count >= shots + 2]

    def _draw(self, index: int, name: str, bounds: tuple[int, int]) -> int:
        low, high = bounds
        return low + int(ordering_key(self.seed, index, "draw", name), 16) % (high - low + 1)

    def _study_row(self, index: int, code: str, patient: str) -> int:
        studies = self._studies[code][patient]
        if len(studies) == 1:
            return next(iter(studies.values()))
        return studies[in_order(self.seed, index, "study", studies)[0]]

    def _related(self, code: str, other: str) -> bool:
        return code in self._ancestors.get(other, ()) or other in self._ancestors.get(code, ())

    def _too_few(self, ways: int, shots: int) -> MetaDxError:
        eligible = self._eligible(shots)
        narrowest = _narrowest(eligible, self._ancestors)
        enough = [f"{code} ({self.patients[code]})" for code in eligible]
        above = [code for code in eligible if code not in narrowest]
        related = f"; above others of them, which they never meet: {_listed(above)}" if above else ""
        short = [f"{code} ({count})" for code, count in self.patients.items() if count < shots + 2]
        return MetaDxError(
            "too_few_diseases",
            f"A {ways}-way {shots}-shot episode needs {ways} diseases with at least {shots + 2} patients, shared with"
            f" no other, none an ancestor of another; {len(enough)} have that many: {_listed(enough)}{related}; too"
            f" few patients in {len(short)}: {_listed(short)}. Ask for fewer ways or shots, or add cases.",
        )


def plan_episode(
    examples: Examples,
    *,
    ways: Count,
    shots: Count,
    queries: int,
    seed: int,
    index: int,
    classes: Collection[str] | None = None,
    ancestors: Mapping[str, Collection[str]] | None = None,
) -> EpisodePlan:
    """Draw one episode; the parameters are those of :class:`EpisodeSampler`, which is faster for many."""
    return EpisodeSampler(examples, ways, shots, queries, seed, classes=classes, ancestors=ancestors).plan(
        index
    )


def _narrowest(codes: Sequence[str], ancestors: Mapping[str, Collection[str]]) -> list[str]:
    """Return the codes that are no ancestor of another of them."""
    above = {code for each in codes for code in ancestors.get(each, ())}
    return [code for code in codes if code not in above]


def _studies_by_class(
    examples: Examples, classes: Collection[str] | None
) -> dict[str, dict[str, dict[str, int]]]:
    """Return code → patient → study → row."""
    if len(set(examples.study.tolist())) != len(examples):
        raise ValueError("the examples hold a study more than once")
    wanted = None if classes is None else set(classes)
    found: dict[str, dict[str, dict[str, int]]] = {}
    rows = zip(examples.code.tolist(), examples.patient.tolist(), examples.study.tolist(), strict=True)
    for row, (code, patient, study) in enumerate(rows):
        if code and (wanted is None or code in wanted):
            found.setdefault(code, {}).setdefault(patient, {})[study] = row
    return found


def _bounds(value: Count, name: str, least: int) -> tuple[int, int]:
    low, high = (value, value) if isinstance(value, int) else value
    if not least <= low <= high:
        raise MetaDxError(
            "bad_episode_shape", f"{name} is {value}: give a number, or a range, from {least} up."
        )
    return low, high


def _listed(names: Sequence[str], most: int = 10) -> str:
    if not names:
        return "none"
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
