"""A trained learner is adapted once as in the comparison, to the number of diseases it can, without any training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from meta_dx.cohort.examples import Examples
from meta_dx.errors import MetaDxError
from meta_dx.learners.options import LearnerOptions
from meta_dx.training import stage as stages
from meta_dx.training.adapted import adapted_network, normalised_with, pools_logits
from meta_dx.training.body import build_on_images
from meta_dx.training.embedding import embed_studies
from meta_dx.training.frozen import build_on_embeddings
from meta_dx.training.start import encoder_of
from meta_dx.training.task import TrainingTask
from meta_dx.training.train import train_stages, trained_learner
from tests.training.tiny import cohort, tiny_task

QUICK = {"pretrain_epochs": 1, "episodes": 1, "head_steps": 1, "body_validation_episodes": 1}
IMAGES, NEW = cohort(3, 3, seed=5)
"""Three diseases that training has not seen; the first study of each has two images."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainingTask:
    chosen = LearnerOptions(name="proto_maml", compare=("meta_lstm", "maml"))
    task = replace(tiny_task(tmp_path_factory.mktemp("adapted"), **QUICK), learner=chosen)
    train_stages(task, lambda _: lambda *_: None)
    return task


def answers(task: TrainingTask, name: str, confirmed: Examples = NEW) -> torch.Tensor:
    return adapted_network(task, trained_learner(task, name), confirmed, IMAGES)(torch.from_numpy(IMAGES))


def test_the_same_studies_give_the_same_bits_in_any_order(trained: TrainingTask) -> None:
    first = answers(trained, "maml")
    assert torch.equal(first, answers(trained, "maml"))
    assert not first.requires_grad
    order = np.random.default_rng(0).permutation(len(NEW))
    other = answers(trained, "maml", NEW.take(order))
    torch.testing.assert_close(other.softmax(-1), first.softmax(-1), rtol=0, atol=1e-4)


def test_one_image_of_each_study_is_adapted_to(trained: TrainingTask) -> None:
    found = answers(trained, "proto_maml")
    learner = build_on_images("proto_maml", trained)
    learner.load_state_dict(trained_learner(trained, "proto_maml").best["learner"])
    labels = torch.tensor([NEW.diseases.index(code) for code in NEW.code])
    x = torch.from_numpy(IMAGES).float()
    candidates = []
    for picked in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)):
        rows = [int(r[0]) for r in NEW.images]
        for disease, second in enumerate(picked):
            rows[3 * disease] += second
        state = {n: v.detach() for n, v in learner.eval().adapt_task(x[rows], labels, 3).items()}
        candidates.append(learner.predict_task(state, x).detach().softmax(-1))
    apart = [float((one - found.softmax(-1)).abs().max()) for one in candidates]
    assert min(apart) < 1e-5
    assert sorted(apart)[1] > 1e-5


def test_meta_lstm_answers_a_study_by_the_mean_of_its_images_logits(trained: TrainingTask) -> None:
    found = answers(trained, "meta_lstm")
    stage = trained_learner(trained, "meta_lstm")
    encoder = encoder_of(trained, stage)
    learner = build_on_embeddings("meta_lstm", encoder.embedding_size, trained).eval()
    learner.load_state_dict(stage.best["head"])
    vectors = torch.from_numpy(embed_studies(encoder, IMAGES, NEW))
    labels = torch.tensor([NEW.diseases.index(code) for code in NEW.code])
    expected = learner.predict_task(learner.adapt_task(vectors, labels, 3), vectors)
    pooled = torch.stack([found[rows].mean(0) for rows in NEW.images])
    torch.testing.assert_close(pooled, expected, rtol=0, atol=1e-4)
    assert pools_logits("meta_lstm")
    assert not pools_logits("maml")


def test_whose_statistics_stand_in_the_network_is_told() -> None:
    own = LearnerOptions().own
    told = {
        name: normalised_with(name, own(name)) for name in ("maml", "reptile", "meta_lstm", "fine_tuning")
    }
    assert told == {
        "maml": "support",
        "reptile": "support",
        "meta_lstm": "stored",  # the encoder is frozen, whatever its own option says
        "fine_tuning": "stored",
    }


def test_another_number_of_diseases_is_for_those_that_take_any(trained: TrainingTask) -> None:
    two = NEW.with_codes(NEW.diseases[:2])
    assert answers(trained, "proto_maml", two).shape == (len(IMAGES), 2)
    for name in ("maml", "meta_lstm"):
        with pytest.raises(MetaDxError, match=f"'{name}' was trained for 3 diseases, and 2 are") as caught:
            answers(trained, name, two)
        assert caught.value.code == "other_ways"


@pytest.mark.parametrize("change", ["learner", "options", "pretrain"])
def test_what_is_not_finished_is_refused_and_never_trained(
    trained: TrainingTask, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(stages, "_train", lambda *_: pytest.fail("it trains"))
    name, task = "maml", trained
    if change == "learner":
        name = "reptile"
    elif change == "options":
        task = replace(task, learner=replace(task.learner, maml=replace(task.learner.maml, steps=4)))
    else:
        task = replace(task, options=replace(task.options, pretrain_epochs=2))
    with pytest.raises(MetaDxError, match="meta-dx train") as caught:
        trained_learner(task, name)
    assert caught.value.code == "not_trained"
    assert (f"'{name}'" in str(caught.value)) is (change != "pretrain")


def test_a_learner_that_adapts_no_network_is_no_such_learner(tmp_path: Path, trained: TrainingTask) -> None:
    stage = replace(trained_learner(trained, "meta_lstm"), name="leo")
    with pytest.raises(ValueError, match="leo adapts no network"):
        adapted_network(trained, stage, NEW, IMAGES)
