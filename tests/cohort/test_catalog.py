import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meta_dx.cohort import rows as collecting
from meta_dx.cohort.catalog import Catalog, clear_unfinished, series_of, studies_of, write_batch
from meta_dx.cohort.tables import read_tables
from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from tests.cohort.catalog_rows import instance_row, instances_frame

COUNTS = {"found": 1}


@pytest.fixture
def home(tmp_path) -> Home:
    return Home.open(tmp_path / "home")


def rejection(batch="b0001", file="F1", code="not_dicom"):
    return {"batch": batch, "file": file, "outcome": "not_dicom", "code": code, "reason": "No."}


def test_a_batch_is_written_and_read_back(home):
    rows = [instance_row(instance=f"2.25.{i}", instance_number=9 - i) for i in range(3)]
    write_batch(home, "b0001", rows, [rejection()], COUNTS)
    catalog = Catalog(home)
    assert catalog.batches() == ["b0001"]
    assert catalog.instances()["instance"].tolist() == ["2.25.2", "2.25.1", "2.25.0"]
    assert catalog.rejections()["code"].tolist() == ["not_dicom"]
    assert catalog.instances(columns=["patient"]).columns.tolist() == ["patient"]
    assert catalog.summary("b0001")["found"] == 1
    assert len(catalog.studies()) == len(catalog.series()) == 1


def test_the_order_of_rows_does_not_change_a_byte(home, tmp_path):
    rows = [instance_row(instance=f"2.25.{i}", study=f"2.25.{i % 3}") for i in range(9)]
    refused = [rejection(file=f"F{i}") for i in range(5)]
    other = Home.open(tmp_path / "other")
    write_batch(home, "b0001", rows, refused, COUNTS)
    rows.reverse()
    write_batch(other, "b0001", rows, refused[::-1], COUNTS)
    for file in (home.catalog / "b0001").iterdir():
        assert file.read_bytes() == (other.catalog / "b0001" / file.name).read_bytes()


def test_a_batch_never_changes(home):
    write_batch(home, "b0001", [instance_row()], [], COUNTS)
    before = Catalog(home).version
    write_batch(home, "b0001", [instance_row(sex="M")], [], COUNTS)
    assert Catalog(home).instances()["sex"].isna().all()
    assert Catalog(home).version == before
    assert [folder.name for folder in home.catalog.iterdir()] == ["b0001"]


def test_the_version_follows_the_content(home, tmp_path):
    empty = Catalog(home).version
    write_batch(home, "b0001", [instance_row()], [], COUNTS)
    one = Catalog(home).version
    write_batch(home, "b0002", [], [], COUNTS)
    other = Home.open(tmp_path / "other")
    write_batch(other, "b0001", [instance_row(sex="F")], [], COUNTS)
    assert len({empty, one, Catalog(home).version, Catalog(other).version}) == 4


def test_an_empty_batch_and_an_empty_home_have_tables(home):
    assert Catalog(home).studies().empty and Catalog(home).series().empty
    write_batch(home, "b0001", [], [], COUNTS)
    for table in (Catalog(home).instances(), Catalog(home).studies(), Catalog(home).series()):
        assert table.empty and "study" in table


def test_a_study_of_two_batches_is_one_row(home):
    first = instance_row(study="2.25.5", series="2.25.6", instance="2.25.7")
    second = {**first, "batch": "b0002", "instance": "2.25.8", "sex": "M", "age_years": 40.0}
    write_batch(home, "b0001", [first], [], COUNTS)
    write_batch(home, "b0002", [second], [], COUNTS)
    studies, series = Catalog(home).studies(), Catalog(home).series()
    assert studies[["batch", "instances", "series", "sex", "age_years"]].values.tolist() == [
        ["b0001", 2, 1, "M", 40.0]
    ]
    assert series["instances"].tolist() == [2]
    assert Catalog(home).studies(["b0002"])[["batch", "instances"]].values.tolist() == [["b0002", 1]]
    with pytest.raises(MetaDxError, match="b0003"):
        Catalog(home).studies(["b0003"])


@pytest.mark.parametrize("name", ["../b0001", "", ".", "b0001/../b0001"])
def test_a_batch_is_no_path(home, name):
    write_batch(home, "b0001", [], [], COUNTS)
    with pytest.raises(MetaDxError):
        Catalog(home).instances([name])


def test_half_a_batch_is_no_batch(home):
    (home.catalog / ".b0001.abc.tmp").mkdir()
    (home.catalog / "b0002").mkdir()
    assert Catalog(home).batches() == []
    clear_unfinished(home)
    assert [folder.name for folder in home.catalog.iterdir()] == ["b0002"]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_studies_and_series_agree_with_a_plain_count(data):
    count = data.draw(st.integers(1, 25))
    rows = []
    for i in range(count):
        study = data.draw(st.integers(0, 3))
        rows.append(
            {
                "batch": data.draw(st.sampled_from(["b0001", "b0002"])),
                "study": f"2.25.{study}",
                "series": f"2.25.{study}{data.draw(st.integers(0, 2))}",
                "instance": f"2.25.{i}",
                "patient": f"P{study // 2}",
                "modality": data.draw(st.sampled_from(["CT", "MR", "CR"])),
                "body_part": data.draw(st.sampled_from([None, "CHEST", "HAND"])),
            }
        )
    frame = instances_frame(*rows)
    studies, series = studies_of(frame), series_of(frame)
    assert studies["study"].tolist() == sorted({row["study"] for row in rows})
    for row in studies.to_dict("records"):
        own = [r for r in rows if r["study"] == row["study"]]
        assert row["instances"] == len(own)
        assert row["series"] == len({r["series"] for r in own})
        assert row["batch"] == min(r["batch"] for r in own)
        assert row["patient"] == own[0]["patient"]
        modalities = [r["modality"] for r in own]
        assert row["modality"] == min(set(modalities), key=lambda m: (-modalities.count(m), m))
        parts = [r["body_part"] for r in own if r["body_part"]]
        expected = min(set(parts), key=lambda p: (-parts.count(p), p)) if parts else np.nan
        assert row["body_part"] == expected or (pd.isna(row["body_part"]) and not parts)
    assert series["instances"].sum() == studies["instances"].sum() == count
    assert series["series"].tolist() == sorted({row["series"] for row in rows})


def test_studies_that_reach_over_groups_of_rows_are_derived_whole(home, monkeypatch):
    monkeypatch.setattr(collecting, "_BLOCK", 4)
    monkeypatch.setattr(collecting, "GROUP", 8)
    sizes = {"a": 3, "b": 5, "c": 30, "d": 1, "e": 8, "f": 2}  # within a group, at its end, over several
    rows = [
        instance_row(study=study, series=f"{study}{n % 3}", instance=f"{study}{n:03d}", patient=f"P{study}")
        for study, size in sizes.items()
        for n in range(size)
    ]
    write_batch(home, "b0001", rows[::-1], [], COUNTS)
    catalog = Catalog(home)
    instances = catalog.instances()
    assert len(instances) == len(rows)
    for name, derived in (("studies", studies_of(instances)), ("series", series_of(instances))):
        written = read_tables(name, [home.catalog / "b0001" / f"{name}.parquet"])
        pd.testing.assert_frame_equal(written, derived)
