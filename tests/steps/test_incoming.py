"""A batch that fails a blocking check is in use nowhere until it passes or a person accepts it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from meta_dx.cli.app import run as meta_dx
from meta_dx.errors import MetaDxError
from meta_dx.steps import Project, open_project
from meta_dx.steps.cohort import usable_catalog
from meta_dx.steps.incoming import (
    pending_batches,
    require_blocking,
    take_in,
    usable_batches,
    validate,
    waiting_batches,
)
from tests.dicom.builders import write_instance


@pytest.fixture
def project(tmp_path: Path) -> Project:
    rng = np.random.default_rng(0)
    for part, patients in (("good", range(6)), ("cut", range(6, 46))):
        for number in patients:
            pixels = rng.integers(0, 4000, (40, 40), dtype=np.uint16)
            path = write_instance(
                tmp_path / part, patient=f"P{number}", study=f"1.2.{number + 1}", pixels=pixels
            )
            if part == "cut" and number % 2:
                path.write_bytes(path.read_bytes()[:-900])
    (tmp_path / "c.toml").write_text('[cohort]\nname = "c"\nsources = ["good", "cut"]\n')
    return open_project(tmp_path / "c.toml", tmp_path / "home")


def test_a_refused_batch_waits_on_and_is_in_no_catalog_that_is_used(project: Project) -> None:
    first, second = (batch.id for batch in pending_batches(project))
    assert waiting_batches(project) == [first, second]
    for batch in (first, second):
        take_in(project, batch)
    assert usable_batches(project) == [], "ingested is not yet validated"
    assert validate(project, first).passed_blocking
    refused = validate(project, second)
    with pytest.raises(MetaDxError) as caught:
        require_blocking(refused)
    assert "few_files_damaged" in str(caught.value)
    assert usable_batches(project) == [first]
    assert waiting_batches(project) == [second], "the next run checks it again instead of training on it"
    assert set(usable_catalog(project).instances()["batch"]) == {first}


def test_a_person_may_accept_a_refused_batch_with_a_reason(project: Project, tmp_path: Path) -> None:
    batches = [batch.id for batch in pending_batches(project)]
    for batch in batches:
        take_in(project, batch)
    options = ["validate", "--cohort", str(tmp_path / "c.toml"), "--home", str(tmp_path / "home")]
    assert meta_dx(options) == 2
    assert meta_dx([*options, "--accept", batches[1]]) == 2, "not without a reason"
    assert usable_batches(project) == batches[:1]
    assert meta_dx([*options, "--accept", batches[1], "--reason", "the cut files are known test shots"]) == 0
    assert usable_batches(project) == batches
