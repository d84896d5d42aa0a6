"""A home whose bundle was trained on it, and whose answers come with intervals and with the cases they rest on."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from meta_dx.cohort.catalog import Catalog
from meta_dx.learners.options import LearnerOptions
from meta_dx.steps import Project, open_project
from meta_dx.steps.models import export
from meta_dx.steps.predictions import predict_batch
from meta_dx.training import selection
from tests.pipelines.conftest import Ran, ran

__all__ = ["project", "ran"]


@pytest.fixture
def project(ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of the pipelines' home: a neural process is trained on its encoder for some steps, and answers."""
    shutil.copytree(ran.home, tmp_path / "home")
    made = open_project(ran.cohort, tmp_path / "home")
    training = replace(made.settings.training, head_steps=20)
    project = replace(made, settings=replace(made.settings, learner=LearnerOptions("anp"), training=training))
    # So small a home has too few validation diseases to tell that it may serve.
    monkeypatch.setattr(selection, "FEWEST_DISEASES", 0)
    monkeypatch.setattr(selection, "MARGIN", 1.0)
    assert export(project).serving_head == "anp"
    for batch in Catalog(project.home).batches():
        predict_batch(project, batch)
    return project
