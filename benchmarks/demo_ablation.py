"""What one trait family is worth to a trained network: per-disease accuracy on the demo cohort without the family.

    python benchmarks/demo_ablation.py COHORT.toml WORK [--seed 0] [--networks 3] [--families …] [--retrain]

Draws the cohort intact and ``--without`` each family into WORK, takes all of them in, trains on the intact one with
several training seeds, and compares on its *unseen* diseases (validation and rare: no network learnt from either),
on the same episodes:

- the same networks on the redrawn pictures. Pictures of diseases that are not built on the family are the same to
  the letter, so whatever changes is due to the family and to nothing else;
- with ``--retrain``, networks trained and chosen anew on each redrawn cohort: what a learner can still reach;
- a reader who sees the drawn traits themselves and knows every disease: what the family is worth at most.

In a 5-way episode a disease that is not built on the family can change all the same, because its neighbours did. So
every pair of diseases is asked alone as well, and pairs are told apart by how many of the two are built on the
family. Intervals: bootstrap over diseases and networks. What is finished in WORK is not done again.
Figures: docs/demo-cohort.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from meta_dx.cohort.examples import Examples
from meta_dx.cohort.images import ImageStore
from meta_dx.cohort.selection import with_original_identifiers
from meta_dx.dicom.phantom import write_phantom
from meta_dx.dicom.phantom.plan import make_plan
from meta_dx.dicom.phantom.traits import FAMILIES
from meta_dx.episodes.plan import EpisodePlan, EpisodeSampler, eligible_diseases
from meta_dx.evaluation.asking import Asked, Floats, Method, ask
from meta_dx.home import Home
from meta_dx.learners.base import Head
from meta_dx.learners.options import LearnerOptions
from meta_dx.metrics.classification import hits
from meta_dx.records.vault import Vault
from meta_dx.settings import Settings, load_settings
from meta_dx.steps import Project
from meta_dx.steps.cohort import freeze_and_assemble
from meta_dx.steps.incoming import pending_batches, require_blocking, take_in, take_in_diagnoses, validate
from meta_dx.steps.training import select
from meta_dx.training.embedding import embed_studies
from meta_dx.training.selection import TrainingResult

WAYS, SHOTS, QUERIES, EPISODES, PER_PAIR, RESAMPLES = 5, 5, 10, 600, 6, 2000


@dataclass(frozen=True)
class Drawn:
    """One drawing of the cohort in its home: studies of the unseen diseases under original identifiers."""

    project: Project
    store: ImageStore
    unseen: Examples

    @classmethod
    def of(cls, settings: Settings, work: Path, name: str, seed: int, without: str | None) -> Drawn:
        """Draw, take in and split; what is there already is used."""
        studies = work / f"{without or 'intact'}-studies"
        if not studies.exists():
            tell(f"{name}: drawing")
            write_phantom(studies, seed=seed, without=without)
        cohort = replace(
            settings.cohort,
            sources=(str(studies / "first"), str(studies / "second")),
            diagnoses=str(studies / "diagnoses.csv"),
        )
        # No patient is hidden: which ones would be depends on the key of the home. Prototypical Networks and the
        # plain heads suffice here: the neural process starts from a plain head and takes longer than all the rest.
        own = replace(
            settings, cohort=cohort, inbox=replace(settings.inbox, holdout=0), learner=LearnerOptions()
        )
        project = Project(Home.open(work / name, cohort.name), own)
        for batch in pending_batches(project):
            tell(f"{name}: taking in {batch.id}")
            take_in(project, batch.id)
            require_blocking(validate(project, batch.id))
        take_in_diagnoses(project)
        data = freeze_and_assemble(project)
        vault = Vault.open(project.home)
        codes = data.split.codes("validation") + data.split.codes("rare")
        unseen = data.everybody().with_codes(codes)
        renamed = with_original_identifiers(unseen, vault.all("study"), vault.all("patient"), data.groups)
        return cls(project, data.store, renamed.take(np.argsort(renamed.study)))

    def train(self, seed: int) -> TrainingResult:
        """Pre-train, meta-train and choose; a finished choice is read."""
        tell(f"{self.project.home.root.name}: training with seed {seed}")
        settings = self.project.settings
        seeded = replace(settings, cohort=replace(settings.cohort, seed=seed))
        return select(
            replace(self.project, settings=seeded),
            lambda done, total, message="": tell(message) if done == total else None,
        )

    def same_pictures(self, other: Drawn) -> npt.NDArray[np.bool_]:
        """Tell for each study whether it is the same to the letter in both homes, as the network sees it."""
        if self.unseen.study.tolist() != other.unseen.study.tolist():
            raise SystemExit(f"{other.project.home.root} holds other studies than {self.project.home.root}")
        # Instances may stand in another order: their surrogates differ between homes.
        return np.array(
            [
                sorted(self.store.images[row].tobytes() for row in mine)
                == sorted(other.store.images[row].tobytes() for row in theirs)
                for mine, theirs in zip(self.unseen.images, other.unseen.images, strict=True)
            ]
        )


@dataclass(frozen=True)
class Recalls:
    """What K networks found: recall of each disease in 5-way episodes (K, n), and against each other one (K, n, n)."""

    five: Floats
    pairs: Floats

    @classmethod
    def of(cls, each: list[tuple[Floats, Floats]]) -> Recalls:
        """Join the readings of several networks."""
        return cls(np.stack([five for five, _ in each]), np.stack([pairs for _, pairs in each]))


class Reader:
    """Asks the same episodes of every drawing."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples
        self.codes = eligible_diseases(examples, SHOTS)[0]
        self._five = list(EpisodeSampler(examples, WAYS, SHOTS, QUERIES, 0).plans(EPISODES))
        self._pairs: list[EpisodePlan] = []
        for pair in combinations(self.codes, 2):
            sampler = EpisodeSampler(examples, 2, SHOTS, QUERIES, 0, classes=pair)
            self._pairs += sampler.plans(PER_PAIR)

    def read(self, networks: list[TrainingResult], drawn: Drawn) -> Recalls:
        """Let networks, each with its chosen head, answer everything from a drawing's pictures."""
        return Recalls.of([self._one(trained, drawn) for trained in networks])

    def _one(self, trained: TrainingResult, drawn: Drawn) -> tuple[Floats, Floats]:
        tell(f"{drawn.project.home.root.name}: reading")
        vectors = embed_studies(trained.encoder(), drawn.store.images, drawn.unseen)
        method = from_torch(trained.heads()[trained.head])
        five, pairs = (self._answered(method, vectors, plans) for plans in (self._five, self._pairs))
        # Every disease is asked about equally many patients each time it takes part.
        by_code = np.array([five[1][five[0].disease == code].mean() for code in self.codes])
        asked, hit = pairs
        number = {code: i for i, code in enumerate(self.codes)}
        of_class = np.vectorize(number.__getitem__)(asked.classes)  # (E, 2)
        own = of_class[asked.episode, asked.label]
        other = of_class[asked.episode, 1 - asked.label]
        right, count = np.zeros((2, len(number), len(number)))
        np.add.at(right, (own, other), hit)
        np.add.at(count, (own, other), 1)
        return by_code, right / np.maximum(count, 1)

    def ideal(self, levels: Mapping[str, Mapping[str, str]], without: str | None) -> Recalls:
        """Answer from the drawn traits with full knowledge of the diseases; where several fit best, toss a coin."""
        shown = [dict(zip(FAMILIES, names, strict=True)) for names in product(*FAMILIES.values())]
        chance = np.array(
            [[_chance(levels[code], traits, without) for traits in shown] for code in self.codes]
        )  # (n, combinations of levels)
        number = {code: i for i, code in enumerate(self.codes)}
        total, held = np.zeros((2, len(number)))
        for plan in self._five:
            classes = [number[code] for code in plan.classes]
            total[classes] += _recall(chance[classes])
            held[classes] += 1
        pairs = np.zeros((len(number), len(number)))
        for a, b in combinations(range(len(number)), 2):
            pairs[a, b], pairs[b, a] = _recall(chance[[a, b]])
        return Recalls.of([(total / held, pairs)])

    def _answered(
        self, method: Method, vectors: npt.NDArray[np.float32], plans: list[EpisodePlan]
    ) -> tuple[Asked, Floats]:
        asked = Asked.of(plans, self.examples)
        return asked, hits(ask(method, vectors, plans), asked.label)


def _chance(levels: Mapping[str, str], shown: Mapping[str, str], without: str | None) -> float:
    """Return the chance that a patient of a disease shows these traits."""
    fixed = {family: level for family, level in levels.items() if family != without}
    each = [
        float(fixed[family] == shown[family]) if family in fixed else 1 / len(names)
        for family, names in FAMILIES.items()
    ]
    return float(np.prod(each))


def _recall(chance: Floats) -> Floats:
    """Return the recall of each of N diseases whose patients show combinations by these chances, (N, combinations)."""
    best = np.isclose(chance, chance.max(0))
    return np.asarray((chance * best / best.sum(0)).sum(1))


def from_torch(head: Head) -> Method:
    """Return a head as a method of the evaluation."""
    import torch

    def method(
        support: npt.NDArray[np.float32], onehot: npt.NDArray[np.float32], query: npt.NDArray[np.float32]
    ) -> Floats:
        with torch.inference_mode():
            state = head.adapt_tensors(torch.from_numpy(support), torch.from_numpy(onehot))
            logits = head.predict_tensors(state, torch.from_numpy(query))  # (E, M, Q, N)
            return logits.softmax(-1).mean(1).double().numpy()

    return method


def figure(values: npt.NDArray[np.floating]) -> str:
    """Write the point estimate (first) with the interval of the resamples (the others), in points."""
    low, high = np.nanquantile(values[1:], [0.025, 0.975])  # NaN: a resample without any pair
    return f"{100 * values[0]:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def rows(
    before: Recalls, after: Recalls, built: npt.NDArray[np.bool_], paired: bool
) -> Iterator[tuple[str, str]]:
    """Name and figure of each comparison.

    Diseases are resampled among the built ones and among the others, networks too; ``paired`` networks are the same
    ones before and after, and are drawn together.
    """
    rng, sides = np.random.default_rng(0), (built, ~built)
    weight = np.ones((1 + RESAMPLES, len(built)))
    for side in sides:
        weight[1:, side] = rng.multinomial(side.sum(), np.full(side.sum(), 1 / side.sum()), RESAMPLES)
    drawn = resampled(len(before.five), rng)
    redrawn = drawn if paired else resampled(len(after.five), rng)
    five = redrawn @ after.five - drawn @ before.five  # (1 + RESAMPLES, n), the first row as it is
    own, others = ((weight * side * five).sum(1) / side.sum() for side in sides)
    lower = f"; lower in {(five[0][built] < 0).sum()} of {built.sum()}"
    yield "5-way, built on it", figure(own) + lower
    yield "5-way, not built on it", figure(others)
    yield "5-way, difference", figure(own - others)
    apart = ~np.eye(len(built), dtype=bool)  # a disease drawn twice is no pair
    pairs = np.tensordot(redrawn, after.pairs, 1) - np.tensordot(drawn, before.pairs, 1)
    for name, of, against in (
        ("pair, both built on it", *(built, built)),
        ("pair, built on it against not", *(built, ~built)),
        ("pair, not built on it against built", *(~built, built)),
        ("pair, neither built on it", *(~built, ~built)),
    ):
        both = (weight * of)[:, :, None] * (weight * against)[:, None, :] * apart
        with np.errstate(invalid="ignore"):
            yield name, figure((both * pairs).sum((1, 2)) / both.sum((1, 2)))


def resampled(networks: int, rng: np.random.Generator) -> Floats:
    """Return the weight of each network in each resample, (1 + RESAMPLES, K); in the first row all weigh the same."""
    even = np.full(networks, 1 / networks)
    return np.vstack([even, rng.multinomial(networks, even, RESAMPLES) / networks])


def tell(message: str) -> None:
    """Say on standard error what is going on."""
    sys.stderr.write(message + "\n")


def show(title: str, before: Recalls, after: Recalls, built: npt.NDArray[np.bool_], paired: bool) -> None:
    """Print one comparison."""
    sys.stdout.write(f"\n{title}, change in points (95 % interval)\n")
    for name, value in rows(before, after, built, paired):
        sys.stdout.write(f"  {name:<38}{value}\n")
    for side, which in (("built on it", built), ("not built on it", ~built)):
        each = (", ".join(f"{share:.1%}" for share in r.five[:, which].mean(1)) for r in (before, after))
        sys.stdout.write(f"  5-way of each network, {side}: {' → '.join(each)}\n")
    sys.stdout.flush()


def main(cohort: str, work: Path, seed: int, networks: int, families: list[str], retrain: bool) -> None:
    """Print the change for each family."""
    settings = load_settings(cohort)
    levels = {disease.code: disease.levels for disease in make_plan(seed, 64, None).diseases}
    intact = Drawn.of(settings, work, "intact", seed, None)
    trained = [intact.train(k) for k in range(networks)]
    reader = Reader(intact.unseen)
    before = reader.read(trained, intact)
    sys.stdout.write(
        f"seed {seed}: {len(reader.codes)} unseen diseases, heads {', '.join(one.head for one in trained)}; "
        f"intact {WAYS}-way {', '.join(f'{share:.1%}' for share in before.five.mean(1))}\n"
    )
    for family in families:
        built = np.array([family in levels[code] for code in reader.codes])
        drawn = Drawn.of(settings, work, family, seed, family)
        same = intact.same_pictures(drawn)
        on = np.array([family in levels[code] for code in intact.unseen.code.tolist()])
        sys.stdout.write(
            f"\n== {family}: pictures the same to the letter in {same[~on].sum()} of {(~on).sum()} studies of "
            f"diseases not built on it, in {same[on].sum()} of {on.sum()} of the others\n"
        )
        ideal = reader.ideal(levels, None), reader.ideal(levels, family)
        show("Reader of the drawn traits", *ideal, built, paired=True)
        show("Same networks", before, reader.read(trained, drawn), built, paired=True)
        if retrain:
            anew = [drawn.train(k) for k in range(networks)]
            show("Trained anew", before, reader.read(anew, drawn), built, paired=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cohort")
    parser.add_argument("work", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--networks", type=int, default=3)
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--retrain", action="store_true")
    main(**vars(parser.parse_args()))
