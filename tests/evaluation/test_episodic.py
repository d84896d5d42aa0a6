"""The episodic protocol in worlds where the right answer is known."""

from dataclasses import asdict

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from meta_dx.episodes.plan import EpisodeSampler
from meta_dx.errors import MetaDxError
from meta_dx.evaluation.episodic import EpisodicResult, evaluate_episodes
from tests.evaluation.worlds import FakePredictor, World, gaussian_world, reordered, shuffled


def evaluate(world: World, **options: object) -> EpisodicResult:
    chosen = {"ways": 5, "shots": 5, "queries": 10, "episodes": 200, "seed": 3} | options
    return evaluate_episodes(FakePredictor(), world.vectors, world.examples, **chosen)  # type: ignore[arg-type]


def bayes_accuracy(distance: float, ways: int) -> float:
    """Chance that the coordinate of the own corner, moved by distance / sqrt 2, beats ways - 1 others."""
    shift = distance / np.sqrt(2)
    return quad(lambda z: norm.pdf(z - shift) * norm.cdf(z) ** (ways - 1), -8, 8 + shift)[0]


def test_nearest_centroid_approaches_the_bayes_accuracy_with_many_shots() -> None:
    bayes = bayes_accuracy(2.5, 5)
    world = gaussian_world([400] * 8, seed=1, distance=2.5)
    heads = ("prototypical", "simpleshot")
    result = evaluate(world, shots=150, queries=60, episodes=150, heads=heads)
    found = result.comparison.served
    assert abs(found.accuracy - bayes) < 0.02
    assert found.ci95[0] < bayes < found.ci95[1]
    few = evaluate(world, shots=1, queries=60, episodes=150, heads=heads).comparison.served
    assert few.accuracy < bayes - 0.05


def test_true_probabilities_are_calibrated_and_sharpened_ones_are_not() -> None:
    world = gaussian_world([400] * 8, seed=2, distance=2.0)
    heads = ("prototypical", "simpleshot")
    found = evaluate(world, shots=200, queries=60, episodes=150, heads=heads).comparison.served
    assert found.ece < 0.03
    assert found.ece_ci95[0] <= found.ece <= found.ece_ci95[1]
    assert abs(sum(weight for _, _, weight in found.reliability) - 1) < 1e-9
    too_sure = gaussian_world([400] * 8, seed=2, distance=4.0, noise=2.0)
    assert evaluate(too_sure, shots=50, queries=60, episodes=50, heads=heads).comparison.served.ece > 0.1


def test_shuffled_diagnoses_score_chance_for_every_method() -> None:
    world = shuffled(gaussian_world([30] * 12, seed=3, distance=6.0), seed=0)
    result = evaluate(world, extra={"shortcut": world.vectors[:, :4]})
    assert list(result.comparison.methods) == ["prototypical", "simpleshot", "logistic", "shortcut"]
    for found in result.comparison.methods.values():
        assert found.ci95[0] < 0.2 < found.ci95[1]
        assert abs(found.accuracy - 0.2) < 0.04
        assert abs(found.auroc - 0.5) < 0.05


def test_figures_are_what_an_episode_by_episode_count_gives() -> None:
    world = gaussian_world([7, 8, 9, 12, 20, 6], seed=4, distance=2.0)
    result = evaluate(world, ways=4, shots=3, queries=5, episodes=40)
    head = FakePredictor()
    accuracy, auroc = [], []
    for plan in EpisodeSampler(world.examples, 4, 3, 5, 3).plans(40):
        support = np.concatenate(plan.support)
        onehot = np.eye(4)[np.repeat(np.arange(4), 3)]
        state = head.adapt_episodes(
            world.vectors[support][None], onehot[None].astype(np.float32), "prototypical"
        )
        p = head.predict_episodes(state, world.vectors[np.concatenate(plan.query)][None], "prototypical")[1][
            0
        ]
        y = np.repeat(np.arange(4), [len(rows) for rows in plan.query])
        accuracy.append(np.mean([(p[y == n].argmax(1) == n).mean() for n in range(4)]))
        auroc.append(np.mean([roc_auc_score(y == n, p[:, n]) for n in range(4)]))
    found = result.comparison.served
    assert found.accuracy == pytest.approx(np.mean(accuracy))
    assert found.auroc == pytest.approx(np.mean(auroc), abs=1e-6)
    assert found.mc95 == pytest.approx(1.96 * np.std(accuracy, ddof=1) / np.sqrt(40))


def test_the_order_of_the_rows_changes_nothing() -> None:
    world = gaussian_world([7, 8, 9, 12, 20, 6], seed=5, distance=2.0)
    first, second = asdict(evaluate(world)), asdict(evaluate(reordered(world, seed=1)))
    np.testing.assert_equal(_rounded(first), _rounded(second))


def test_the_same_seed_gives_the_same_figures_and_another_seed_others() -> None:
    world = gaussian_world([9] * 10, seed=6, distance=2.0)
    first, again = evaluate(world), evaluate(world)
    assert asdict(first) == asdict(again)
    assert evaluate(world, seed=4).comparison.served.accuracy != first.comparison.served.accuracy


def test_all_methods_answer_the_same_episodes() -> None:
    world = gaussian_world([9] * 10, seed=7, distance=2.0)
    result = evaluate(world, heads=("prototypical", "logistic"), extra={"shortcut": world.vectors})
    methods = result.comparison.methods
    # The shortcut baseline given the embeddings is the logistic head of the fake predictor.
    assert methods["shortcut"].accuracy == methods["logistic"].accuracy
    gap = result.comparison.differences[0]
    assert (gap.method, gap.against) == ("prototypical", result.comparison.best_baseline)
    assert gap.estimate == pytest.approx(methods["prototypical"].accuracy - methods["logistic"].accuracy)


def test_small_diseases_are_left_out_and_counted_and_all_their_patients_are_asked() -> None:
    world = gaussian_world([5, 6, 7, 8, 30, 30, 30], seed=8, distance=2.0)
    result = evaluate(world, ways=4, shots=5, queries=10)
    assert result.left_out == {"D00": 5, "D01": 6}
    assert result.classes == ("D02", "D03", "D04", "D05", "D06")
    assert (result.queries_per_class.min, result.queries_per_class.max) == (2, 10)
    assert {row.code: row.patients for row in result.comparison.per_disease}["D02"] == 7


def test_too_few_diseases_is_one_clear_sentence() -> None:
    with pytest.raises(MetaDxError, match="5 diseases"):
        evaluate(gaussian_world([9] * 4, seed=9, distance=2.0))


def test_the_confusable_pair_is_named_first() -> None:
    world = gaussian_world([20] * 8, seed=10, distance=6.0)
    twin = world.examples.code == "D03"
    vectors = world.vectors.copy()
    vectors[twin] += vectors[world.examples.code == "D05"].mean(0) - vectors[twin].mean(0)
    pair = evaluate(World(world.examples, vectors)).comparison.confused[0]
    assert {pair.one, pair.other} == {"D03", "D05"}
    assert pair.one_as_other >= pair.other_as_one
    assert 0.3 < pair.one_as_other < 0.8


def test_progress_ends_at_the_total() -> None:
    world = gaussian_world([9] * 6, seed=12, distance=2.0)
    seen: list[tuple[int, int]] = []
    evaluate(world, episodes=20, progress=lambda done, total, message="": seen.append((done, total)))
    assert seen[-1] == (60, 60)
    assert seen == sorted(seen)


def _rounded(value: object) -> object:
    """Sums in another order differ in the last bits."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value
