"""Synthetic catalog and label tables for the tests of validation: clean ones, to plant faults into.

A batch of 36 patients: radiographs, CT stacks and photographs, some patients twice. Values come from a seed,
and every identifier looks like a surrogate.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache

import numpy as np
import pandas as pd

from meta_dx.cohort.tables import frame_of
from meta_dx.dicom.frames import FRAME_FIELDS

TODAY = date(2026, 11, 23)
CT, DX, VL = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.77.1.4"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SCANNERS = (("Acme", "One"), ("Acme", "Two"), ("Borealis", "X"), (None, None))
KINDS = {
    "DX": {"sop_class": DX, "body_part": "CHEST", "images": 2, "bits_stored": 12, "low": 0.0, "high": 4095.0},
    "CT": {
        "sop_class": CT,
        "body_part": "HEAD",
        "images": 8,
        "bits_stored": 12,
        "low": -1024.0,
        "high": 3071.0,
    },
    "XC": {"sop_class": VL, "body_part": None, "images": 1, "bits_stored": 8, "low": 0.0, "high": 255.0},
}


@dataclass
class Batch:
    """Tables of one batch, to be changed in place before they become tables of the catalog."""

    instances: pd.DataFrame
    rejections: pd.DataFrame
    others: pd.DataFrame | None = None
    name: str = "b0002"

    def refuse(self, *codes: str) -> list[str]:
        """Add one refused file per code and return their surrogates."""
        files = [f"F{len(self.rejections) + i:016d}" for i in range(len(codes))]
        rows = [
            {"batch": self.name, "file": file, "outcome": "rejected", "code": code, "reason": "A reason."}
            for file, code in zip(files, codes, strict=True)
        ]
        self.rejections = pd.concat([self.rejections, pd.DataFrame(rows)], ignore_index=True)
        return files

    def add(self, like: int, **changes: object) -> str:
        """Add an image like that in row ``like``, under a new UID and content unless told otherwise."""
        serial = 900_000 + len(self.instances)
        fresh = {
            "instance": f"2.25.3{serial}",
            "content": f"c{serial}",
            "pixels": f"x{serial}",
            "object": f"o{serial}",
        }
        row = self.instances.iloc[like].to_dict() | fresh | changes
        self.instances = pd.concat([self.instances, pd.DataFrame([row])], ignore_index=True)
        return str(row["instance"])

    def taken(self) -> pd.DataFrame:
        """The instances with exactly the columns and types that the catalog gives them."""
        return frame_of("instances", self.instances.to_dict("records"))

    def refused(self) -> pd.DataFrame:
        return frame_of("rejections", self.rejections.to_dict("records"))

    def rows(self, **wanted: object) -> list[int]:
        """Positions of the images with these values."""
        mask = np.ones(len(self.instances), bool)
        for column, value in wanted.items():
            mask &= (self.instances[column] == value).to_numpy()
        return [int(i) for i in np.flatnonzero(mask)]

    def visits(self, patient: str) -> list[str]:
        return list(dict.fromkeys(self.instances.loc[self.instances["patient"] == patient, "study"]))

    def patients(self, visits: int) -> list[str]:
        """Patients with exactly so many studies."""
        counts = self.instances.groupby("patient")["study"].nunique()
        return sorted(counts[counts == visits].index)


def clean_batch(name: str = "b0002", seed: int = 0, patients: int = 36) -> Batch:
    """Draw a batch without any fault."""
    return deepcopy(_drawn(name, seed, patients))


@cache
def _drawn(name: str, seed: int, patients: int) -> Batch:
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for p in range(patients):
        patient = f"P{name[-4:]}{seed:04d}{p:08d}"
        sex, born = rng.choice(["M", "F", "O"], p=[0.45, 0.45, 0.1]), 1940 + float(rng.uniform(0, 60))
        for visit in range(1 + (p % 3 == 0)):
            kind = list(KINDS)[(p + visit) % 3]
            rows += _study(rng, name, patient, f"{seed}{p:04d}{visit}", kind, str(sex), born)
    empty = pd.DataFrame(columns=["batch", "file", "outcome", "code", "reason"], dtype=object)
    batch = Batch(pd.DataFrame(rows), empty, name=name)
    batch.refuse("no_pixel_data", "media_directory", "truncated")
    return batch


def _study(
    rng: np.random.Generator, batch: str, patient: str, serial: str, kind: str, sex: str, born: float
) -> list[dict[str, object]]:
    what = KINDS[kind]
    serial = batch[-4:] + serial
    manufacturer, model = SCANNERS[int(rng.integers(len(SCANNERS)))]
    side = int(rng.choice([256, 512]))
    day = date(2015, 1, 1) + timedelta(days=int(rng.integers(0, 3600)))
    age = float(int(day.year + day.timetuple().tm_yday / 365.25 - born))
    accession = f"A{serial}" if rng.random() < 0.8 else None
    common = {
        "batch": batch,
        "study": f"2.25.1{serial}",
        "series": f"2.25.2{serial}",
        "patient": patient,
        "accession": accession,
        "modality": kind,
        "body_part": what["body_part"],
        "laterality": None,
        "view": "PA" if kind == "DX" else None,
        "manufacturer": manufacturer,
        "model": model,
        "sop_class": what["sop_class"],
        "transfer_syntax": "1.2.840.10008.1.2.1",
        "photometric": "RGB" if kind == "XC" else "MONOCHROME2",
        "rows": side,
        "columns": side,
        "frames": 1,
        "samples": 3 if kind == "XC" else 1,
        "bits_stored": what["bits_stored"],
        "rescale_slope": 1.0,
        "rescale_intercept": what["low"],
        "sex": sex,
        "age_years": age,
        "study_date": day.isoformat(),
        "image_type": "ORIGINAL\\PRIMARY\\AXIAL",
        "pixel_min": what["low"],
        "pixel_max": what["high"],
        "pixel_std": 100.0,
        "stored_min": 0.0,
        "stored_max": what["high"] - what["low"],
        **dict.fromkeys((*FRAME_FIELDS, "spacing_between_slices", "gantry_tilt"), np.nan),
        "geometry_version": 1.0,
        "frame_geometry": None,
        "frame_of_reference": None,
    }
    if kind == "CT":
        common |= {"position_x": 0.0, "position_y": 0.0, "across_x": 1.0, "down_y": 1.0, "spacing_down": 0.5}
        common |= {"spacing_across": 0.5, "slice_thickness": 5.0, "frame_of_reference": f"2.25.4{serial}"}
    # Gantry tilt and rounding: the steps of a stack are almost, never quite, the same.
    return [
        common
        | {
            "instance": f"2.25.3{serial}{i:03d}",
            "object": f"o{serial}{i}",
            "content": f"c{serial}{i}",
            "pixels": f"x{serial}{i}",
            "instance_number": i + 1,
            "position": 5.0 * i + float(rng.uniform(-0.2, 0.2)) if kind == "CT" else np.nan,
        }
        for i in range(int(what["images"]))
    ]


def clean_diagnoses(studies: pd.DataFrame, diseases: int = 6) -> pd.DataFrame:
    """Label three studies in four with invented diseases."""
    labelled = studies[np.arange(len(studies)) % 4 != 3].reset_index(drop=True)
    number = np.random.default_rng(0).permutation(np.arange(len(labelled)) % diseases)
    columns = {
        "study": labelled["study"],
        "patient": labelled["patient"],
        "accession": labelled["accession"],
        "code": [f"1E{50 + n}.{n}" for n in number],
        "scheme": [("ICD-11", "icd11")[n % 2] for n in number],
        "meaning": [f"Invented disease no. {n}" for n in number],
        "basis": [("histology", None, "Report", "follow-up", "reader")[i % 5] for i in range(len(labelled))],
        "diagnosed_on": [day if i % 3 else None for i, day in enumerate(labelled["study_date"])],
        "valid_from": None,
        "superseded_by": None,
    }
    return pd.DataFrame(columns).astype(object)


def stored(diagnoses: pd.DataFrame) -> pd.DataFrame:
    """The label table with the columns and types that the catalog gives it."""
    return frame_of("diagnoses", diagnoses.to_dict("records"))
