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
_RESAMPLES = 1000
_SAMPLES = 16  # of the noise of a learner that has some
_SCALES = tuple(2 ** (k / 4) for k in range(-12, 33))  # of logits: 1/8 … 256
_CELLS = 500_000  # M x E x Q x N at once, of which a learner with noise holds some hundred bytes each
_LEAST_PROBABILITY = 1e-9  # a class that does not take part has none

Learner = Head | BodyLearner
Floats = npt.NDArray[np.float64]
#: Number of shots → disease → recall in each episode that held it; under "" each episode's mean.
Recalls = Mapping[int, Mapping[str, Floats]]
#: Number of shots → whether each query was answered rightly, in the order of the episodes' queries.
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
        95 % interval by bootstrap over diseases.
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
        self._crowded = [
            _crowded(examples, (self.ways, shots), options, seed, ancestors) for shots in self.plans
        ]

    def recalls(self, learner: Learner, vectors: Vectors) -> Recalls:
        """Let a learner answer every episode from embeddings.

        Parameters
        ----------
        learner : Head or BodyLearner
            In evaluation mode, on the CPU.
        vectors : ndarray of float32, shape (len(examples), D)
            Study embeddings.

        Returns
        -------
        Recalls
        """
        return {
            shots: gathered(pair for answer in _answers(learner, plans, vectors) for pair in answer.recalls())
            for shots, plans in self.plans.items()
        }

    def hits(self, learner: Learner, vectors: Vectors) -> Hits:
        """Return whether each query is answered rightly; parameters are those of :meth:`recalls`."""
        return {
            shots: np.concatenate(
                [hit for answer in _answers(learner, plans, vectors) for hit in answer.hits()]
            )
            for shots, plans in self.plans.items()
        }

    def difference(self, first: Hits, second: Hits) -> tuple[float, float, float]:
        """Return by how much the first is more often right on the same queries, and the 95 % interval of that.

        Averaged over the numbers of shots. Bootstrap over diseases, then patients, with what a disease does to the
        others of its episodes, as in the evaluation (``docs/evaluation.md``).
        """
        parts: list[pd.DataFrame] = []
        gaps = []
        for shots, plans in self.plans.items():
            asked = _queries(plans, self._examples)
            asked["gap"] = first[shots] - second[shots]
            cell = asked.groupby(["episode", "disease"])["gap"].mean().reset_index()
            codes, which = np.unique(cell["disease"], return_inverse=True)
            effect = effect_on_others(cell["gap"].to_numpy(), cell["episode"].to_numpy(), which)
            asked["gap"] += asked["disease"].map(dict(zip(codes, effect, strict=True)))
            gaps.append(cell.groupby("episode")["gap"].mean().mean())
            parts.append(asked.groupby(["disease", "patient"])["gap"].mean().reset_index())
        units = pd.concat(parts)
        found = two_level_bootstrap(units["gap"], units["disease"], units["patient"])
        gap = float(np.mean(gaps))
        return gap, gap + found.low - found.estimate, gap + found.high - found.estimate

    def check(self, learner: Learner, vectors: Vectors) -> Checked:
        """Let a learner that says how sure it is answer every episode, and some of many more diseases.

        Trained on episodes of a few diseases, it can go on becoming surer among few while it loses the order
        among many, which the accuracy of few shows least.
        """
        few = {shots: list(_answers(learner, plans, vectors)) for shots, plans in self.plans.items()}
        recalls = {
            shots: gathered(pair for a in answers for pair in a.recalls()) for shots, answers in few.items()
        }
        losses = [[a.log_losses() for a in answers] for answers in few.values()]
        losses += [[a.log_losses() for a in _answers(learner, plans, vectors, 1)] for plans in self._crowded]
        accuracy = np.mean([score.accuracy for score in self.scored(recalls)])
        return Checked(float(accuracy), float(np.mean([np.concatenate(each).mean() for each in losses])))

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
        return self.scored(self.recalls(learner, vectors))

    def scored(self, recalls: Recalls) -> list[Score]:
        """Return the scores of recalls, one for each number of shots."""
        return [_score(shots, self.plans[shots], found) for shots, found in recalls.items()]

    def accuracy(self, learner: Learner, vectors: Vectors) -> float:
        """Return the mean accuracy over the numbers of shots: what candidates are chosen by."""
        return float(np.mean([score.accuracy for score in self.scores(learner, vectors)]))


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


def gathered(answers: Iterable[tuple[EpisodePlan, Floats]]) -> Mapping[str, Floats]:
    """Return each disease's recalls over its episodes, and under "" each episode's mean.

    Parameters
    ----------
    answers : iterable of (EpisodePlan, ndarray of float64, shape (N,))
        The recall of each class of each episode.
    """
    by_disease: dict[str, list[float]] = {}
    for plan, recalls in answers:
        by_disease.setdefault("", []).append(float(np.mean(recalls)))
        for code, recall in zip(plan.classes, recalls, strict=True):
            by_disease.setdefault(code, []).append(float(recall))
    return {code: np.array(values) for code, values in by_disease.items()}


@dataclass(frozen=True)
class _Answers:
    """Probabilities (E, Q, N) of some episodes."""

    plans: list[EpisodePlan]
    episode: Episode
    probabilities: torch.Tensor

    def recalls(self) -> Iterator[tuple[EpisodePlan, Floats]]:
        """Yield the recall of each class of each episode."""
        episode = self.episode
        right = (self.probabilities.argmax(-1) == episode.query_y) & episode.query_mask  # (E, Q)
        recall = (self._hot() * right.unsqueeze(-1)).sum(1) / self._asked()  # (E, N)
        for plan, recalls in zip(self.plans, recall.double().numpy(), strict=True):
            yield plan, recalls[: len(plan.classes)]

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


def _score(shots: int, plans: list[EpisodePlan], recalls: Mapping[str, Floats]) -> Score:
    each = recalls[""]
    means = np.array([values.mean() for code, values in sorted(recalls.items()) if code])
    rng = np.random.default_rng(0)
    resampled = means[rng.integers(len(means), size=(_RESAMPLES, len(means)))].mean(1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Score(
        shots=shots,
        ways=max(len(plan.classes) for plan in plans[: len(each)]),
        episodes=len(each),
        diseases=len(means),
        accuracy=float(each.mean()),
        low=float(low),
        high=float(high),
        mc95=monte_carlo_half_width(each),
    )
