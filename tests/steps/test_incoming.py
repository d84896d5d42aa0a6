"""A batch that fails a blocking check is in use nowhere until it passes or a person accepts it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from meta_dx.cli.app import run as meta_dx
from meta_dx.cohort.catalog import Catalog
from meta_dx.errors import MetaDxError
from meta_dx.steps import Project, open_project
from meta_dx.steps.cohort import usable_catalog
from meta_dx.steps.incoming import (
    idle_sources,
    pending_batches,
    require_blocking,
    require_usable,
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


def test_a_refused_batch_stops_nothing_but_itself(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    refusal = MetaDxError("blocking_check", "The batch b0002 was refused.")
    with pytest.raises(MetaDxError, match="b0002"):
        require_usable(project, [refusal])  # nothing else is there yet
    first, second = (batch.id for batch in pending_batches(project))
    for batch in (first, second):
        take_in(project, batch)
        validate(project, batch)
    require_usable(project, [refusal])
    assert "Left out: The batch b0002 was refused." in caplog.text
    assert usable_batches(project) == [first]


def test_training_goes_on_without_a_refused_batch(
    project: Project, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train = ["train", "--cohort", str(tmp_path / "c.toml"), "--home", str(tmp_path / "home")]
    assert meta_dx(train) == 2
    # The cut batch is left out aloud; what ends the command is that this cohort has no diagnosis at all.
    assert "Left out: Blocking checks failed on ingest of batch b0002" in caplog.text
    last = caplog.records[-1].getMessage()
    assert "diagnos" in last and "b0002" not in last


def test_a_refused_batch_is_in_use_when_its_files_were_mended_where_they_lie(
    project: Project, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = ["validate", "--cohort", str(tmp_path / "c.toml"), "--home", str(tmp_path / "home")]
    assert meta_dx(options) == 2
    assert "few_files_damaged (20 of 40)" in caplog.text
    assert "mend the files where they lie and run again" in caplog.text
    assert "meta-dx validate --accept b0002 --reason WHY" in caplog.text
    mend(tmp_path / "cut")
    assert meta_dx(options) == 0
    assert usable_batches(project) == ["b0001", "b0002", "b0003"]
    assert waiting_batches(project) == []
    instances = usable_catalog(project).instances()
    assert len(instances) == instances["instance"].nunique() == 46


def test_files_that_are_gone_or_damaged_again_are_not_mended(project: Project, tmp_path: Path) -> None:
    options = ["validate", "--cohort", str(tmp_path / "c.toml"), "--home", str(tmp_path / "home")]
    assert meta_dx(options) == 2
    damaged = sorted((tmp_path / "cut").rglob("*.dcm"), key=lambda path: path.stat().st_size)[:20]
    for path in damaged[:10]:
        path.unlink()
    for path in damaged[10:]:
        path.write_bytes(path.read_bytes()[:-1])
    assert meta_dx(options) == 2
    assert usable_batches(project) == ["b0001"]


def test_a_batch_with_few_damaged_files_left_passes(project: Project, tmp_path: Path) -> None:
    options = ["validate", "--cohort", str(tmp_path / "c.toml"), "--home", str(tmp_path / "home")]
    assert meta_dx(options) == 2
    mend(tmp_path / "cut", keep=4)
    assert meta_dx(options) == 0
    report = validate(project, "b0002")
    (damage,) = (result for result in report.results if result.name == "few_files_damaged")
    assert (damage.failed, damage.checked) == (0, 24), "20 whole files, 4 refused, too few to block"


def mend(folder: Path, keep: int = 0) -> None:
    """Write the cut files again, whole, under their names; some stay as they are."""
    whole = max(path.stat().st_size for path in folder.rglob("*.dcm"))
    cut = [path for path in sorted(folder.rglob("*.dcm")) if path.stat().st_size < whole - 500]
    rng = np.random.default_rng(1)
    for number, path in enumerate(cut[keep:]):
        pixels = rng.integers(0, 4000, (40, 40), dtype=np.uint16)
        write_instance(folder, name=path.name, patient=f"M{number}", study=f"1.3.{number + 1}", pixels=pixels)


def test_a_source_that_never_had_dicom_is_named_and_one_that_was_emptied_is_not(tmp_path: Path) -> None:
    write_instance(tmp_path / "full", patient="P", study="1.2.3")
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "letter.txt").write_text("letter")
    (tmp_path / "w.toml").write_text('[cohort]\nname = "w"\nsources = ["full", "wrong"]\n')
    opened = open_project(tmp_path / "w.toml", tmp_path / "home")
    (batch,) = pending_batches(opened)
    take_in(opened, batch.id)
    for path in (tmp_path / "full").iterdir():
        path.unlink()
    (sentence,) = idle_sources(opened)
    assert str(tmp_path / "wrong") in sentence


def test_new_batches_come_before_refused_ones_which_they_may_mend(project: Project, tmp_path: Path) -> None:
    for batch in pending_batches(project):
        take_in(project, batch.id)
        validate(project, batch.id)
    mend(tmp_path / "cut")
    assert waiting_batches(project) == ["b0003", "b0002"]


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


def test_a_reason_without_a_batch_is_refused_and_nothing_is_read(
    project: Project, tmp_path: Path, caplog
) -> None:
    options = ["validate", "--cohort", str(tmp_path / "c.toml"), "--home", str(tmp_path / "home")]
    assert meta_dx([*options, "--reason", "the cut files are known test shots"]) == 2
    assert "--accept" in caplog.text and not Catalog(project.home).batches()
