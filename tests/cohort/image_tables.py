"""A home with objects and a table of instances, without ingest."""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from meta_dx.cohort.objects import ObjectStore
from meta_dx.cohort.tables import INSTANCES, read_tables
from meta_dx.home import Home
from tests.dicom.builders import build_instance, uid_of


@dataclass
class HandMadeCatalog:
    """Stands in for a catalog: put pictures in, get the instances table."""

    home: Home
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self, pixels: npt.NDArray[Any], study: str, *, series: str = "s", batch: str = "b0001", **values: Any
    ) -> None:
        """Store one instance and its row."""
        number = len(self.rows)
        dataset = build_instance(study=study, series=series, instance=f"i{number}", pixels=pixels)
        stream = BytesIO()
        dataset.save_as(stream, enforce_file_format=False)
        row = {
            name: 0 if "int" in str(kind) else np.nan if "double" in str(kind) else "x"
            for name, kind in _KINDS
        }
        row |= {
            "object": ObjectStore(self.home).put(stream.getvalue()),
            "instance": uid_of(f"i{number}"),
            "study": study,
            "series": series,
            "patient": f"P of {study}",
            "batch": batch,
            "frames": int(dataset.get("NumberOfFrames", 1)),
            "instance_number": number,
            "modality": "CR",
        }
        self.rows.append({**row, **values})

    def instances(self) -> pd.DataFrame:
        empty = read_tables("instances", [])
        return pd.DataFrame(self.rows)[list(empty.columns)].astype(empty.dtypes) if self.rows else empty


_KINDS = [(column.name, column.type) for column in INSTANCES]


def photo(seed: int, side: int = 64, detail: float = 1.0) -> npt.NDArray[np.uint8]:
    """Draw a picture with coarse and fine structure, different for each seed."""
    random = np.random.default_rng(seed)
    coarse = np.kron(random.normal(size=(8, 8)), np.ones((side // 8, side // 8)))
    mixed = coarse + detail * 0.3 * random.normal(size=(side, side))
    return ((mixed - mixed.min()) / np.ptp(mixed) * 255).astype(np.uint8)
