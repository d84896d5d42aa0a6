"""Validation: always the same seeded episodes of the validation diseases, answered from study embeddings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from meta_dx.cohort.examples import Examples
from meta_dx.episodes.collate import collate
from meta_dx.episodes.episode import Episode, Query
from meta_dx.episodes.plan import EpisodePlan, EpisodeSampler, most_ways
from meta_dx.learners.base import Head
from meta_dx.learners.body import BodyLearner
from meta_dx.metrics.intervals import effect_on_others, monte_carlo_half_width, two_level_bootstrap
from meta_dx.training.embedding import Vectors
from meta_dx.training.feasibility import common_ways, feasible
from meta_dx.training.options import TrainingOptions

_AT_ONCE = 100  # episodes in one batch
_CROWDED = 20  # episodes of many ways, for each number of shots
_SAMPLES = 16  # of the noise of a learner that has some
_SCALES = tuple(2 ** (k / 4) for k in range(-12, 33))  # of logits: 1/8 … 256
_CELLS = 500_000  # M x E x Q x N at once, of which a learner with noise holds some hundred bytes each
_LEAST_PROBABILITY = 1e-9  # a class that does not take part has none

Learner = Head | BodyLearner
Floats = npt.NDArray[np.float64]
#: Number of shots → whether each query was answered rightly, in the order of the episodes' queries; of a learner that
#: answered the first episodes only, those of their queries.
Hits = Mapping[int, Floats]


@dataclass(frozen=True)
class Score:
    """How often a head is right at one number of shots; fractions.

    Parameters
    ----------
    shots, ways, episodes, diseases : int
        What was asked: diseases are those that occurred.
    accuracy : float
        Mean over episodes of the mean class recall.
    low, high : float
        95 % interval by bootstrap over diseases, then patients.
    mc95 : float
        Half width of the 95 % interval that the drawing of episodes alone leaves; NaN for a single episode.
    """

    shots: int
    ways: int
    episodes: int
    diseases: int
    accuracy: float
    low: float
    high: float
    mc95: float


@dataclass(frozen=True)
class Checked:
    """What a validation found, and what weights are chosen by.

    Parameters
    ----------
    accuracy : float
        Mean over the numbers of shots.
    log_loss : float, optional
        As a share of that of guessing, likewise; of a learner that says how sure it is.
    """

    accuracy: float
    log_loss: float | None = None

    @property
    def score(self) -> float:
        """The higher, the better: minus the log loss where there is one, which also sees false certainty."""
        return self.accuracy if self.log_loss is None else -self.log_loss


class ValidationEpisodes:
    """The fixed episodes on which checkpoints and heads are compared.

    Parameters
    ----------
    examples : Examples
        Studies of the validation diseases.
    options : TrainingOptions
        Ways, shots, queries and number.
    seed : int
        Seed of the episodes.
    ancestors : mapping of str to collection of str, optional
        Diseases above each code, which are never in an episode with it.

    Raises
    ------
    MetaDxError
        ``too_few_diseases`` when not even two diseases have three patients.
    """

    def __init__(
        self,
        examples: Examples,
        options: TrainingOptions,
        seed: int,
        ancestors: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self._examples = examples
        self.plans: dict[int, list[EpisodePlan]] = {}
        self.ways = common_ways(examples, options, ancestors)
        for wanted in options.validation_shots:
            ways, shots = feasible(examples, self.ways, wanted, ancestors)
            if shots in self.plans:
                continue
            sampler = EpisodeSampler(
                examples, ways, shots, options.validation_queries, seed, ancestors=ancestors
            )
            self.plans[shots] = list(sampler.plans(options.validation_episodes))
        self._asked = {shots: _queries(plans, examples) for shots, plans in self.plans.items()}
        self._crowded = [
            _crowded(examples, (self.ways, shots), options, seed, ancestors) for shots in self.plans
        ]

    @property
    def diseases(self) -> int:
        """How many diseases are asked about."""
        return len({code for asked in self._asked.values() for code in asked["disease"]})

    def hits(self, learner: Learner, vectors: Vectors) -> Hits:
        """Let a learner answer every episode from embeddings, and return which queries it answers rightly.

        Parameters
        ----------
        learner : Head or BodyLearner
            In evaluation mode, on the CPU.
        vectors : ndarray of float32, shape (len(examples), D)
            Study embeddings.

        Returns
        -------
        Hits
        """
        return {shots: _together(_answers(learner, plans, vectors)) for shots, plans in self.plans.items()}

    def difference(self, first: Hits, second: Hits) -> tuple[float, float, float]:
        """Return by how much the first is more often right on the same queries, and the 95 % interval of that.

        Averaged over the numbers of shots. Bootstrap over diseases, then patients, with what a disease does to the
        others of its episodes, as in the evaluation (``docs/evaluation.md``).
        """
        asked = [self._valued(shots, first[shots] - second[shots]) for shots in self.plans]
        gap = float(np.mean([_each(one).mean() for one in asked]))
        low, high = _interval(asked)
        return gap, gap + low, gap + high

    def check(self, learner: Learner, vectors: Vectors) -> Checked:
        """Let a learner that says how sure it is answer every episode, and some of many more diseases.

        Trained on episodes of a few diseases, it can go on becoming surer among few while it loses the order
        among many, which the accuracy of few shows least.
        """
        few = {shots: list(_answers(learner, plans, vectors)) for shots, plans in self.plans.items()}
        hits = {shots: _together(answers) for shots, answers in few.items()}
        losses = [[a.log_losses() for a in answers] for answers in few.values()]
        losses += [[a.log_losses() for a in _answers(learner, plans, vectors, 1)] for plans in self._crowded]
        return Checked(
            self.accuracy_of(hits), float(np.mean([np.concatenate(each).mean() for each in losses]))
        )

    def best_scale(self, learner: Learner, vectors: Vectors) -> float:
        """Return the factor on a learner's logits that gives the lowest log loss among few and among many."""
        answers = [_answers(learner, plans, vectors) for plans in self.plans.values()]
        answers += [_answers(learner, plans, vectors, 1) for plans in self._crowded]
        batches = [list(each) for each in answers]

        def loss(scale: float) -> float:
            losses = [np.concatenate([a.scaled(scale).log_losses() for a in batch]) for batch in batches]
            return float(np.mean([each.mean() for each in losses]))

        return min(_SCALES, key=loss)

    def scores(self, learner: Learner, vectors: Vectors) -> list[Score]:
        """Return the scores of a learner that answers from embeddings, one for each number of shots."""
        return self.scored(self.hits(learner, vectors))

    def scored(self, hits: Hits) -> list[Score]:
        """Return the scores of answers, one for each number of shots."""
        return [self._score(shots, self._valued(shots, found)) for shots, found in hits.items()]

    def accuracy(self, learner: Learner, vectors: Vectors) -> float:
        """Return the mean accuracy over the numbers of shots: what candidates are chosen by."""
        return self.accuracy_of(self.hits(learner, vectors))

    def accuracy_of(self, hits: Hits) -> float:
        """Return the mean accuracy of answers over the numbers of shots."""
        return float(np.mean([_each(self._valued(shots, found)).mean() for shots, found in hits.items()]))

    def _valued(self, shots: int, values: Floats) -> pd.DataFrame:
        """Return the queries that were answered, each with its value."""
        return self._asked[shots].head(len(values)).assign(value=values)

    def _score(self, shots: int, asked: pd.DataFrame) -> Score:
        each = _each(asked)
        accuracy = float(each.mean())
        low, high = _interval([asked])
        return Score(
            shots=shots,
            ways=max(len(plan.classes) for plan in self.plans[shots][: len(each)]),
            episodes=len(each),
            diseases=asked["disease"].nunique(),
            accuracy=accuracy,
            low=accuracy + low,
            high=accuracy + high,
            mc95=monte_carlo_half_width(each),
        )


def _crowded(
    examples: Examples,
    size: tuple[int, int],
    options: TrainingOptions,
    seed: int,
    ancestors: Mapping[str, Collection[str]] | None,
) -> list[EpisodePlan]:
    """Return episodes of so many shots with more ways, up to all diseases that have the patients."""
    ways, shots = size
    most = most_ways(examples, shots, ancestors)
    sampler = EpisodeSampler(
        examples, (ways, most), shots, options.validation_queries, seed, ancestors=ancestors
    )
    return list(sampler.plans(min(_CROWDED, options.validation_episodes)))


@dataclass(frozen=True)
class _Answers:
    """Probabilities (E, Q, N) of some episodes."""

    plans: list[EpisodePlan]
    episode: Episode
    probabilities: torch.Tensor

    def hits(self) -> Iterator[Floats]:
        """Yield whether each query of an episode is answered rightly, in the order of the plan's queries."""
        right = (self.probabilities.argmax(-1) == self.episode.query_y).double()
        for hit, real in zip(right, self.episode.query_mask, strict=True):
            yield hit[real].numpy()

    def log_losses(self) -> Floats:
        """Return -log p of the true class as a share of log N, mean over classes of each class's mean, (E,)."""
        p = self.probabilities.double().clamp_min(_LEAST_PROBABILITY)
        nats = -p.log().gather(-1, self.episode.query_y.unsqueeze(-1)) * self.episode.query_mask.unsqueeze(-1)
        of_class = (self._hot() * nats).sum(1) / self._asked().clamp_min(1)  # (E, N)
        ways = self.episode.class_mask.sum(1).double()
        losses: Floats = (of_class.sum(1) / (ways * ways.log())).numpy()
        return losses

    def scaled(self, scale: float) -> _Answers:
        """Return the answers that so many times the logits give."""
        return replace(self, probabilities=(scale * self.probabilities.double().log()).softmax(-1))

    def _hot(self) -> torch.Tensor:
        ways = self.episode.class_mask.shape[1]
        hot = torch.nn.functional.one_hot(self.episode.query_y, ways)  # (E, Q, N)
        return hot * self.episode.query_mask.unsqueeze(-1)

    def _asked(self) -> torch.Tensor:
        return self._hot().sum(1)  # (E, N)


def _queries(plans: Sequence[EpisodePlan], examples: Examples) -> pd.DataFrame:
    """Return ``episode``, ``disease`` and ``patient`` of every query, in the order of the plans."""
    rows = np.concatenate([row for plan in plans for row in plan.query])
    count = [sum(map(len, plan.query)) for plan in plans]
    episode = np.repeat(np.arange(len(plans)), count)
    return pd.DataFrame(
        {"episode": episode, "disease": examples.code[rows], "patient": examples.patient[rows]}
    )


def _answers(
    head: Learner, plans: list[EpisodePlan], vectors: Vectors, at_once: int = _AT_ONCE
) -> Iterator[_Answers]:
    for start in range(0, len(plans), at_once):
        part = plans[start : start + at_once]
        with torch.inference_mode():
            episode = collate(part, vectors)
            answers = _Answers(part, episode, _probabilities(head, episode))
        yield answers


def _probabilities(head: Learner, episode: Episode) -> torch.Tensor:
    """Return the answers (E, Q, N), of a learner with noise in parts of the queries that fit in memory."""
    noise, state = _noise(head, episode), head.adapt(episode.support)
    if noise is None:
        return head.predict(state, episode.query).probabilities()
    tasks, samples, ways, _ = noise.shape
    x, mask = episode.query.x, episode.query.mask
    step = max(1, _CELLS // (tasks * samples * ways))
    parts = [
        head.predict(state, Query(x[:, at : at + step], mask[:, at : at + step]), noise=noise).probabilities()
        for at in range(0, x.shape[1], step)
    ]
    return torch.cat(parts, 1)


def _noise(head: Learner, episode: Episode) -> torch.Tensor | None:
    """Return the same noise every time, for learners that answer by samples."""
    if not isinstance(head, Head):
        return None
    return head.draw_noise(episode, _SAMPLES, torch.Generator().manual_seed(0))


def _together(answers: Iterable[_Answers]) -> Floats:
    return np.concatenate([hit for answer in answers for hit in answer.hits()])


def _cells(asked: pd.DataFrame) -> pd.DataFrame:
    """Return the mean value of each disease in each episode."""
    return asked.groupby(["episode", "disease"])["value"].mean().reset_index()


def _each(asked: pd.DataFrame) -> Floats:
    """Return the mean over the diseases of each episode, shape (E,)."""
    return np.asarray(_cells(asked).groupby("episode")["value"].mean())


def _interval(asked: Sequence[pd.DataFrame]) -> tuple[float, float]:
    """Return how far the ends of the 95 % interval of a mean over some numbers of shots lie from it.

    Bootstrap over diseases, then patients, with what a disease does to the others of its episodes.
    """
    parts = []
    for one in asked:
        cells = _cells(one)
        codes, which = np.unique(cells["disease"], return_inverse=True)
        effect = effect_on_others(cells["value"].to_numpy(), cells["episode"].to_numpy(), which)
        carried = one["value"] + one["disease"].map(dict(zip(codes, effect, strict=True)))
        parts.append(carried.groupby([one["disease"], one["patient"]]).mean().rename("value").reset_index())
    units = pd.concat(parts)
    found = two_level_bootstrap(units["value"], units["disease"], units["patient"])
    return found.low - found.estimate, found.high - found.estimate
