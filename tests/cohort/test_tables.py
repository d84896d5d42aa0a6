from hashlib import sha256

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from meta_dx.cohort import rows as collecting
from meta_dx.cohort.rows import Rows, TableWriter
from meta_dx.cohort.seen import Taken
from meta_dx.cohort.tables import SCHEMAS, fits, frame_of, parquet_bytes, read_tables
from meta_dx.errors import MetaDxError
from tests.cohort.catalog_rows import instance_row, instances_frame


def test_a_table_comes_back_with_its_types(tmp_path):
    frame = instances_frame({"sex": "F", "age_years": 3.5}, {"instance": "2.25.2"})
    file = tmp_path / "instances.parquet"
    file.write_bytes(parquet_bytes("instances", frame))
    back = read_tables("instances", [file, file])
    pd.testing.assert_frame_equal(back, pd.concat([frame, frame], ignore_index=True))
    assert back["rows"].dtype == np.int64 and back["age_years"].dtype == np.float64
    assert back["sex"].isna().tolist() == [False, True, False, True]
    assert pq.ParquetFile(file).schema_arrow.equals(SCHEMAS["instances"])


@pytest.mark.parametrize("name", SCHEMAS)
def test_an_empty_table_has_all_columns_and_types(name):
    empty = read_tables(name, [])
    assert list(empty.columns) == SCHEMAS[name].names and len(empty) == 0
    assert read_tables(name, [], SCHEMAS[name].names[:2]).shape == (0, 2)
    full = frame_of(name, [])
    assert full.dtypes.equals(empty.dtypes)
    parquet_bytes(name, full)


def test_the_bytes_depend_on_the_rows_alone():
    rows = [instance_row(instance=f"2.25.{i}", sex="M") for i in range(5)]
    again = [dict(reversed(row.items())) for row in rows]
    assert parquet_bytes("instances", frame_of("instances", rows)) == parquet_bytes(
        "instances", frame_of("instances", again)
    )


def test_wrong_columns_types_and_empty_values_are_refused():
    with pytest.raises(ValueError, match="nonsense"):
        frame_of("instances", [{**instance_row(), "nonsense": 1}])
    short = instance_row()
    del short["view"]
    with pytest.raises(ValueError, match="view"):
        frame_of("instances", [short])
    with pytest.raises((ValueError, TypeError)):
        frame_of("instances", [instance_row(rows="many")])
    with pytest.raises(ValueError, match="modality"):
        parquet_bytes("instances", instances_frame({"modality": None}))
    with pytest.raises(ValueError, match="columns"):
        parquet_bytes("instances", instances_frame({}).drop(columns="view"))


def test_a_full_temporary_folder_is_said_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.delenv("SQLITE_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    rows, taken = Rows("instances", ["instance"]), Taken()
    for held in (rows, taken):
        held._database.execute("PRAGMA max_page_count = 20")
    for add in (lambda n: rows.append(instance_row(instance=f"2.25.{n}")), lambda n: taken.add(f"2.25.{n}")):
        with pytest.raises(MetaDxError, match=f"{tmp_path} .*TMPDIR.*the disk is full") as fault:
            for number in range(100_000):
                add(number)
        assert fault.value.code == "disk_full"


def test_rows_that_are_collected_come_out_sorted_as_they_went_in(tmp_path, monkeypatch):
    monkeypatch.setattr(collecting, "GROUP", 1024)
    rows = [
        instance_row(
            instance=f"2.25.{n * 7919 % 3001}",
            age_years=float("nan") if n % 3 else 40.5,
            sex=None if n % 2 else "F",
        )
        for n in range(3000)
    ]
    collected = Rows("instances", ["instance"])
    for row in rows:
        collected.append(row)
    assert len(collected) == 3000
    writer = TableWriter(tmp_path / "rows.parquet", "instances")
    for group in collected.groups():
        assert len(group) <= 1024
        writer.write(group)
    assert writer.finish() == sha256((tmp_path / "rows.parquet").read_bytes()).hexdigest()
    expected = frame_of("instances", sorted(rows, key=lambda row: row["instance"]))
    pd.testing.assert_frame_equal(read_tables("instances", [tmp_path / "rows.parquet"]), expected)


@pytest.mark.parametrize("count", [0, 1, 2000])
def test_a_table_of_one_group_has_the_bytes_that_it_has_at_once(tmp_path, count):
    rows = [instance_row(instance=f"2.25.{n:05d}", age_years=float("nan")) for n in range(count)]
    writer = TableWriter(tmp_path / "rows.parquet", "instances")
    for group in Rows("instances", ["instance"], reversed(rows)).groups():
        writer.write(group)
    writer.finish()
    assert (tmp_path / "rows.parquet").read_bytes() == parquet_bytes("instances", frame_of("instances", rows))


@pytest.mark.parametrize(
    ("column", "value", "fitting"),
    [
        ("rows", 5, True),
        ("rows", 5.0, False),
        ("rows", True, False),
        ("rows", 1 << 63, False),
        ("rows", None, False),
        ("sex", None, True),
        ("sex", 1, False),
        ("study", None, False),
        ("study", ["x"], False),
        ("age_years", float("nan"), True),
        ("rescale_slope", float("nan"), False),
        ("rescale_slope", 2, True),
        ("rescale_slope", "2", False),
    ],
)
def test_a_row_fits_when_its_values_may_stand_in_their_columns(column, value, fitting):
    assert fits("instances", instance_row())
    assert fits("instances", instance_row(**{column: value})) is fitting


def test_a_row_with_other_columns_does_not_fit():
    assert not fits("instances", {**instance_row(), "name": "x"})
    assert not fits("instances", {k: v for k, v in instance_row().items() if k != "study"})
