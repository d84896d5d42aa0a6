import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from meta_dx.cohort.tables import SCHEMAS, frame_of, parquet_bytes, read_tables
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
