"""A folder that is taken in for one question: what lies elsewhere in a kept home plays no part."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from meta_dx.cli.app import run as meta_dx
from meta_dx.cohort.images import ImageOptions, ImageStore
from meta_dx.cohort.ingest_options import IngestOptions
from meta_dx.errors import MetaDxError
from meta_dx.inference.bundle import Bundle
from meta_dx.steps import external
from meta_dx.steps.taken import taken_folder
from tests.dicom.builders import write_instance

BUNDLE: Any = SimpleNamespace(image_options=ImageOptions(size=16))


def studies(folder: Path, numbers: range) -> None:
    rng = np.random.default_rng(numbers.start)
    for number in numbers:
        pixels = rng.integers(0, 4000, (40, 40), dtype=np.uint16)
        write_instance(folder, patient=f"P{number}", study=f"1.2.{number + 1}", pixels=pixels)


def found(folder: Path, home: Path) -> set[str]:
    with taken_folder(folder, BUNDLE, home) as taken:
        original = taken.originals("study")
        assert set(taken.studies["study"]) == set(taken.store.index["study"])
        assert set(taken.groups) == set(taken.store.index["patient"])
        return {original[study] for study in taken.store.index["study"]}


def test_a_kept_home_answers_for_the_named_folder_only(tmp_path: Path) -> None:
    studies(tmp_path / "a", range(0, 3))
    studies(tmp_path / "b", range(2, 6))  # study 3 lies in both
    home = tmp_path / "home"
    assert found(tmp_path / "a", home) == {"1.2.1", "1.2.2", "1.2.3"}
    assert found(tmp_path / "b", home) == {"1.2.3", "1.2.4", "1.2.5", "1.2.6"}
    assert found(tmp_path / "a", home) == {"1.2.1", "1.2.2", "1.2.3"}


def test_rows_that_name_studies_outside_the_folder_are_counted_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    studies(tmp_path / "a", range(0, 3))
    header = "study_instance_uid,patient_id,accession_number,code,coding_scheme,meaning"
    rows = [f"1.2.{number + 1},P{number},,D{number % 2},99T,Disease {number % 2}" for number in range(5)]
    table = tmp_path / "d.csv"
    bundle: Any = SimpleNamespace(image_options=ImageOptions(size=16), seen_diseases=())
    for rows_here, said in ((rows[:3], []), (rows, [f"2 of 5 rows of {table} name studies that are not in"])):
        table.write_text("\n".join([header, *rows_here]) + "\n")
        caplog.clear()
        with taken_folder(tmp_path / "a", bundle) as taken:
            assert len(external._unseen(bundle, taken, table, tmp_path / "a")) == 3
        assert [
            record.getMessage().split(str(tmp_path / "a"))[0].rstrip() for record in caplog.records
        ] == said


def test_pictures_that_may_show_a_name_are_left_out_aloud_unless_they_are_allowed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    studies(tmp_path / "a", range(0, 2))
    write_instance(tmp_path / "a", patient="U", study="1.2.9", Modality="US")
    write_instance(tmp_path / "b", patient="U", study="1.2.9", Modality="US")
    with taken_folder(tmp_path / "a", BUNDLE) as taken:
        assert len(taken.studies) == 2
    assert "1 files of" in caplog.text and "--allow ultrasound" in caplog.text
    with taken_folder(tmp_path / "a", BUNDLE, allow=("ultrasound",)) as taken:
        assert len(taken.studies) == 3
    with (
        pytest.raises(MetaDxError, match="--allow ultrasound") as fault,
        taken_folder(tmp_path / "b", BUNDLE),
    ):
        pass
    assert fault.value.code == "nothing_accepted"


def test_reading_and_preparing_keep_to_the_limits_that_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studies(tmp_path / "a", range(0, 2))
    write_instance(tmp_path / "a", patient="L", study="1.2.9", pixels=np.zeros((200, 200), np.uint16))
    prepared: list[Any] = []
    build = ImageStore.build

    def watched(*args: Any, **kwargs: Any) -> ImageStore:
        prepared.append((kwargs["limits"], kwargs["workers"]))
        return build(*args, **kwargs)

    monkeypatch.setattr(ImageStore, "build", watched)
    given = IngestOptions(workers=1, max_file_bytes=40_000, max_seconds=77, allow=("ultrasound",))
    with taken_folder(tmp_path / "a", BUNDLE, limits=given) as taken:
        assert len(taken.studies) == 2
    assert prepared == [(given.limits, 1)]


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_bundle_on_a_folder_keeps_to_the_limits_of_the_cohort_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    given: list[IngestOptions] = []

    def asked(*_: Any, limits: IngestOptions, **__: Any) -> None:
        given.append(limits)
        raise MetaDxError("enough", "That was all.")

    monkeypatch.setattr(external, f"{command}_folder", asked)
    monkeypatch.setattr(Bundle, "load", lambda _: BUNDLE)
    file = tmp_path / "cohort.toml"
    file.write_text(
        '[cohort]\nname = "x"\nsources = ["s"]\ndiagnoses = "d.csv"\n[ingest]\nmax_seconds = 77\n'
    )
    monkeypatch.setenv("META_DX_COHORT", str(file))
    table = {"evaluate": "--diagnoses", "predict": "--support"}[command]
    meta_dx([command, "--bundle", str(tmp_path), "--studies", str(tmp_path), table, str(file)])
    assert [limits.max_seconds for limits in given] == [77]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "Cannot read the support table {path}: no such file or directory."),
        ("study,code\n", "The support table {path} lacks the column study_instance_uid"),
        ("study_instance_uid,code\n", "{path} names no disease:"),
        ("study_instance_uid,code\n1.2,A\n1.3,A\n", "{path} names one disease:"),
        ("study_instance_uid,code\n1.2,A\n1.2,B\n", "One study stands in {path} with two codes"),
    ],
)
def test_a_support_table_that_cannot_be_used_is_told_in_a_sentence(
    content: str | None, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "s.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(MetaDxError) as fault:
        external.read_support(path)
    assert str(fault.value).startswith(said.format(path=path))
