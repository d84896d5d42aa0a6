"""How a learner that adapts the network is asked: what batch norm sees of the queries tells no class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from meta_dx.cohort.examples import Examples
from meta_dx.episodes.plan import EpisodeSampler
from meta_dx.learners.body import BodyLearner
from meta_dx.learners.body_options import MamlOptions, ReptileOptions
from meta_dx.learners.options import LearnerOptions
from meta_dx.learners.registry import build_body_learner
from meta_dx.training import body
from meta_dx.training.body import study_answers
from meta_dx.training.embedding import Pictures
from tests.training.tiny import tiny_task


class Network(nn.Module):
    """One convolution with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.conv(x / 255))).mean((2, 3))


def learner_of(name: str, options: LearnerOptions) -> BodyLearner:
    torch.manual_seed(0)
    return build_body_learner(name, Network(), 8, 2, options).eval()


def many_images(per_study: int = 20) -> tuple[np.ndarray, Examples]:
    """Two diseases of six patients each, whose pictures are noise of a brightness of the patient's own."""
    random = np.random.default_rng()
    code = np.repeat(["A", "B"], 6)
    names = np.array([f"S{i}" for i in range(12)])
    rows = tuple(np.arange(i * per_study, (i + 1) * per_study) for i in range(12))
    bright = random.uniform(60, 190, (12, 1, 1, 1)).repeat(per_study, 0)
    images = (bright + random.normal(0, 25, (12 * per_study, 1, 8, 8))).clip(0, 255).astype(np.uint8)
    return images, Examples(names, names, code, rows)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("maml", LearnerOptions(maml=MamlOptions(batch_norm="batch", steps=1, test_steps=2))),
        ("reptile", LearnerOptions(reptile=ReptileOptions(transductive=True, test_steps=2))),
    ],
)
def test_a_transductive_learner_is_asked_about_all_query_images_at_once(
    name: str, options: LearnerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, examples = many_images()
    learner, pictures = learner_of(name, options), Pictures(images, torch.device("cpu"))
    plan = EpisodeSampler(examples, 2, 1, 5, 0).plan(0)
    assert sum(len(examples.images[row]) for rows in plan.query for row in rows) > body._IMAGES_AT_ONCE
    found = np.concatenate(study_answers(learner, plan, examples, pictures, 0))
    monkeypatch.setattr(body, "_IMAGES_AT_ONCE", 10**6)
    np.testing.assert_array_equal(found, np.concatenate(study_answers(learner, plan, examples, pictures, 0)))
    # In another order of the classes the same studies get the same answers.
    turned = replace(plan, query=plan.query[::-1])
    swapped = np.concatenate(study_answers(learner, turned, examples, pictures, 0)[::-1])
    np.testing.assert_allclose(found, swapped, atol=1e-5)


def test_other_learners_are_asked_in_parts_with_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    images, examples = many_images()
    learner = learner_of("maml", LearnerOptions(maml=MamlOptions(steps=1, test_steps=1)))
    plan = EpisodeSampler(examples, 2, 1, 5, 0).plan(0)
    asked = []
    predict = learner.predict

    def counted(state: Any, query: Any) -> Any:
        asked.append(query.x.shape[1])
        return predict(state, query)

    monkeypatch.setattr(learner, "predict", counted)
    study_answers(learner, plan, examples, Pictures(images, torch.device("cpu")), 0)
    assert max(asked) == body._IMAGES_AT_ONCE
    assert sum(asked) == 200


def test_only_weights_of_transductive_learners_are_chosen_anew(tmp_path: Path) -> None:
    def deciding(mode: str) -> dict[str, object]:
        options = LearnerOptions(maml=MamlOptions(batch_norm=mode))  # type: ignore[arg-type] # a mode
        return body._deciding(replace(tiny_task(tmp_path), learner=options), "maml")

    assert "queries_answered" not in deciding("support")
    assert "queries_answered" in deciding("batch")
