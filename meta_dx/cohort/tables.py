"""The tables of a home: which columns they have, and how they go to Parquet and back.

Each schema is written down once, here. Writing checks it: a missing column, a wrong type or an empty required
value is a fault of ours and never reaches the disk. The bytes of a file depend on its rows alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from meta_dx.dicom.frames import FRAME_FIELDS

_WHOLE = 1 << 63  # of numbers that fit a column


def _required(*names: str) -> list[pa.Field]:
    return [pa.field(name, pa.string(), nullable=False) for name in names]


def _optional(*names: str) -> list[pa.Field]:
    return [pa.field(name, pa.string()) for name in names]


def _whole(*names: str) -> list[pa.Field]:
    return [pa.field(name, pa.int64(), nullable=False) for name in names]


def _real(*names: str) -> list[pa.Field]:
    return [pa.field(name, pa.float64(), nullable=False) for name in names]


def _maybe_real(*names: str) -> list[pa.Field]:
    return [pa.field(name, pa.float64()) for name in names]


#: One row for each accepted instance. Text columns are surrogates or code strings; ``age_years`` and
#: ``position`` (mm along the slice normal) are NaN where unknown; ``pixel_*`` are in physical units; ``stored_min``
#: and ``stored_max`` are values before rescale or LUT, NaN where all is padding. The columns
#: of :data:`~meta_dx.dicom.frames.FRAME_FIELDS` say where the first frame lies, ``frame_geometry`` holds them for
#: all frames of an object with several. Optional columns may be missing in batches of earlier versions: they are
#: empty then.
INSTANCES = pa.schema(
    [
        *_required("batch", "study", "series", "instance", "patient"),
        *_optional("accession"),
        *_required("object", "content", "pixels", "modality"),
        *_optional("body_part", "laterality", "view", "manufacturer", "model"),
        *_required("sop_class", "transfer_syntax", "photometric"),
        *_whole("rows", "columns", "frames", "samples", "bits_stored"),
        *_real("rescale_slope", "rescale_intercept"),
        *_optional("sex"),
        pa.field("age_years", pa.float64()),
        *_optional("study_date", "image_type"),
        *_whole("instance_number"),
        pa.field("position", pa.float64()),
        *_real("pixel_min", "pixel_max", "pixel_std"),
        *_optional("frame_of_reference"),
        *_maybe_real(*FRAME_FIELDS, "spacing_between_slices", "gantry_tilt", "geometry_version"),
        pa.field("frame_geometry", pa.list_(pa.float64())),
        *_maybe_real("stored_min", "stored_max"),
    ]
)

#: One row for each file that was not taken.
REJECTIONS = pa.schema(_required("batch", "file", "outcome", "code", "reason"))

#: One row for each study; ``batch`` is the first that brought an instance of it.
STUDIES = pa.schema(
    [
        *_required("batch", "study", "patient"),
        *_optional("accession"),
        *_required("modality"),
        *_optional("body_part"),
        *_whole("instances", "series"),
        *_optional("sex"),
        pa.field("age_years", pa.float64()),
        *_optional("study_date"),
    ]
)

#: One row for each series.
SERIES = pa.schema([*_required("batch", "series", "study", "patient", "modality"), *_whole("instances")])

#: One row for each diagnosis; ``superseded_by`` is set on those that no longer hold.
DIAGNOSES = pa.schema(
    [
        *_required("study"),
        *_optional("patient", "accession"),
        *_required("code"),
        *_optional("scheme", "meaning", "basis", "diagnosed_on", "valid_from", "superseded_by"),
    ]
)

SCHEMAS: Mapping[str, pa.Schema] = {
    "instances": INSTANCES,
    "rejections": REJECTIONS,
    "studies": STUDIES,
    "series": SERIES,
    "diagnoses": DIAGNOSES,
}


def frame_of(name: str, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Make a frame with exactly the columns and types of a table.

    Parameters
    ----------
    name : str
        The table, one of :data:`SCHEMAS`.
    rows : sequence of mappings
        The rows in their final order.

    Returns
    -------
    DataFrame

    Raises
    ------
    ValueError
        A row lacks a column or has one too many.
    """
    columns = SCHEMAS[name].names
    for row in rows:
        if row.keys() != set(columns):
            raise ValueError(
                f"a row of the table {name} has other columns: {sorted(row.keys() ^ set(columns))}"
            )
    empty = read_tables(name, [])
    return pd.DataFrame(list(rows), columns=columns).astype(empty.dtypes.to_dict()) if rows else empty


def fits(name: str, row: Mapping[str, Any]) -> bool:
    """Tell whether a row has the columns of a table, and values that may stand in them.

    Parameters
    ----------
    name : str
        The table, one of :data:`SCHEMAS`.
    row : mapping
        Column to value; of kinds that JSON has.
    """
    checks = _checks(name)
    return row.keys() == checks.keys() and all(check(row[column]) for column, check in checks.items())


@cache
def _checks(name: str) -> dict[str, Callable[[Any], bool]]:
    return {field.name: _check(field) for field in SCHEMAS[name]}


def _check(field: pa.Field) -> Callable[[Any], bool]:
    """Return what tells whether a value may stand in a column; NaN becomes null there."""
    kind, nullable = field.type, bool(field.nullable)
    if pa.types.is_list(kind):
        inner = _check(kind.value_field)
        return lambda value: nullable if value is None else type(value) is list and all(map(inner, value))
    if pa.types.is_string(kind):
        return lambda value: nullable if value is None else type(value) is str
    if pa.types.is_boolean(kind):
        return lambda value: nullable if value is None else type(value) is bool
    if pa.types.is_integer(kind):
        return lambda value: nullable if value is None else type(value) is int and abs(value) < _WHOLE

    def is_number(value: Any) -> bool:
        if value is None or type(value) is float:
            return nullable or (value is not None and not math.isnan(value))
        return type(value) is int and abs(value) < _WHOLE

    return is_number


def parquet_bytes(name: str, rows: pd.DataFrame) -> bytes:
    """Encode rows as the Parquet file of a table.

    Parameters
    ----------
    name : str
        The table, one of :data:`SCHEMAS`.
    rows : DataFrame
        The rows in their final order; NaN stands for what is not known.

    Returns
    -------
    bytes
        The same bytes for the same rows.

    Raises
    ------
    ValueError
        A column is missing, unknown, of another type, or empty where it must not be.
    """
    schema = SCHEMAS[name]
    if list(rows.columns) != schema.names:
        wrong = sorted(set(schema.names) ^ set(rows.columns))
        raise ValueError(f"the table {name} does not have its columns: {wrong or 'another order'}")
    table = pa.Table.from_pandas(rows, schema, preserve_index=False).combine_chunks()
    target = BytesIO()
    pq.write_table(table.replace_schema_metadata(None), target, compression="zstd", store_schema=False)
    return target.getvalue()


def read_tables(name: str, files: Sequence[Path], columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read and join the Parquet files of one table.

    Parameters
    ----------
    name : str
        The table, one of :data:`SCHEMAS`.
    files : sequence of Path
        The files, in the order in which their rows shall stand.
    columns : sequence of str, optional
        Only these columns.

    Returns
    -------
    DataFrame
        With all columns and their types also when there is no file.
    """
    schema = SCHEMAS[name]
    wanted = list(schema.names if columns is None else columns)
    empty = pa.schema([schema.field(column) for column in wanted]).empty_table()
    tables = [_with_columns(pq.ParquetFile(file), empty.schema) for file in files]
    joined = pa.concat_tables([empty, *tables])
    frame: pd.DataFrame = joined.to_pandas()
    return frame


def _with_columns(file: pq.ParquetFile, schema: pa.Schema) -> pa.Table:
    """Read the columns of a schema; optional ones that a file of an earlier version lacks are empty."""
    there = set(file.schema_arrow.names)
    table = file.read(columns=[name for name in schema.names if name in there])
    for field in schema:
        if field.name not in there and field.nullable:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(schema.names).cast(schema)
