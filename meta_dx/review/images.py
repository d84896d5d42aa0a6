"""The pictures of a case for the viewer: which series and slices there are, and frames at full depth."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.objects import ObjectStore
from meta_dx.cohort.volumes import SeriesPart, series_parts
from meta_dx.dicom.display import WHITE, Window
from meta_dx.dicom.geometry import Stack
from meta_dx.dicom.reading import ReadLimits
from meta_dx.dicom.rejections import Refusal
from meta_dx.dicom.sandbox import borrowed_reader
from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from meta_dx.records.vault import Vault

_READERS = 2  # processes that decode at once


@dataclass(frozen=True)
class Frame:
    """One decoded frame.

    Parameters
    ----------
    pixels : ndarray, shape (H, W) or (H, W, 3)
        In physical units: int16 or uint16 where these hold them exactly, else float32; RGB is uint8.
    """

    pixels: npt.NDArray[Any]

    @property
    def headers(self) -> dict[str, str]:
        """How the bytes are to be read."""
        return {
            "X-Frame-Dtype": self.pixels.dtype.name,
            "X-Frame-Rows": str(self.pixels.shape[0]),
            "X-Frame-Columns": str(self.pixels.shape[1]),
            "X-Frame-Samples": "3" if self.pixels.ndim == 3 else "1",
            "X-Frame-Slope": "1",
            "X-Frame-Intercept": "0",
        }

    def tobytes(self) -> bytes:
        """Return the pixels row by row, little-endian."""
        return self.pixels.astype(self.pixels.dtype.newbyteorder("<"), copy=False).tobytes()


def frame_address(study: str, name: str = "", number: int | None = None) -> str:
    """Return where a frame of a case is fetched; without a name, what all these addresses begin with."""
    begin = f"/cases/{study}/frames/"
    return begin if number is None else f"{begin}{name}/{number}"


class CaseImages:
    """Series and frames of the studies of one home.

    Parameters
    ----------
    home : Home
        The home.
    cache_bytes : int
        How much memory decoded frames may take.
    """

    def __init__(self, home: Home, cache_bytes: int = 256 << 20) -> None:
        self._home, self._most = home, cache_bytes
        self._store = ObjectStore(home)
        with closing(Vault.open(home)) as vault:
            self._key = vault.key
        self._turns = threading.Semaphore(_READERS)
        self._lock = threading.Lock()
        self._frames: OrderedDict[tuple[str, int, bool], Frame] = OrderedDict()
        self._held = 0
        self._tables: tuple[str, _Tables] | None = None

    def manifest(self, study: str) -> dict[str, Any]:
        """Describe the case for the viewer: its series, and those of earlier studies of the same patient.

        Parameters
        ----------
        study : str
            Surrogate UID of the case.

        Returns
        -------
        dict
            ``studies``, the case itself first, then the others, newest first (``docs/review.md``). Nothing in it is
            an identity, a date or a free text; frames of reference are numbered in the order of the series.
        """
        tables = self._current()
        described = []
        references: dict[str, str] = {}
        for number, (key, days) in enumerate(tables.around(study)):
            label = "current" if number == 0 else _when(days)
            parts = zip(tables.parts(key), self._windows(tables, key), strict=True)
            series = [
                {**self._series(study, part, n, window), "frame_of_reference": _reference(part, references)}
                for n, (part, window) in enumerate(parts)
            ]
            described.append({"key": f"s{number}", "label": label, "series": series})
        return {"studies": described}

    def frame(self, study: str, name: str, number: int) -> Frame:
        """Decode one frame of an object that belongs to a case or to another study of its patient.

        Of a series that a table or a sigmoid shapes it is what the object wants shown, else what it measured.

        Raises
        ------
        MetaDxError
            ``unknown_frame``.
        """
        if not self.holds(study, name, number):
            raise MetaDxError("unknown_frame", "This case has no such picture.")
        return self._decoded(name, number, self._curved(study, name, number))

    def holds(self, study: str, name: str, number: int) -> bool:
        """Tell whether a frame of an object belongs to a case or to another study of its patient."""
        return 0 <= number < self._current().objects_of(study).get(name, 0)

    def warm(self, study: str) -> None:
        """Decode the picture that a viewer asks for first, so that it need not wait for a reader to start."""
        for part in self._current().parts(study)[:1]:
            middle = _middle(part)
            self._decoded(*middle, self._curved(study, *middle))

    def picture(self, image: str, frame: int = 0) -> Frame:
        """Decode a frame of an instance by its surrogate UID, as the object wants it shown, whichever study it is of.

        Raises
        ------
        MetaDxError
            ``unknown_frame``.
        """
        name = self._current().object_of(image)
        if name is None:
            raise MetaDxError("unknown_frame", "There is no such picture.")
        return self._decoded(name, frame, shown=True)

    def _decoded(self, name: str, number: int, shown: bool = False) -> Frame:
        key = (name, number, shown)
        with self._lock:
            if key in self._frames:
                self._frames.move_to_end(key)
                return self._frames[key]
        with self._turns, borrowed_reader(self._key, ReadLimits()) as reader:
            pixels = reader.frame(self._store.path(name), number, shown=shown)
        if isinstance(pixels, Refusal):
            raise MetaDxError("frame_unreadable", f"This picture cannot be read any more: {pixels.reason}")
        frame = Frame(pixels)
        with self._lock:
            if key not in self._frames:
                self._frames[key] = frame
                self._held += frame.pixels.nbytes
            while self._held > self._most and len(self._frames) > 1:
                _, old = self._frames.popitem(last=False)
                self._held -= old.pixels.nbytes
        return frame

    def _current(self) -> _Tables:
        catalog = Catalog(self._home)
        version = catalog.version
        if self._tables is None or self._tables[0] != version:
            self._tables = (version, _Tables(catalog.instances()))
        return self._tables[1]

    def _windows(self, tables: _Tables, key: str) -> list[Window | None]:
        """Return the window of each part of a study: the one that the middle frame's object names."""
        if key not in tables.windows:
            middles = [_middle(part) for part in tables.parts(key)]
            with self._turns, borrowed_reader(self._key, ReadLimits()) as reader:
                tables.windows[key] = [reader.window(self._store.path(name), n) for name, n in middles]
        return tables.windows[key]

    def _curved(self, study: str, name: str, number: int) -> bool:
        """Tell whether a frame belongs to a series that a table or a sigmoid shapes."""
        tables = self._current()
        return any(
            bool(((part.instances["object"] == name) & (part.instances["frame"] == number)).any())
            for key, _ in tables.around(study)
            for part, window in zip(tables.parts(key), self._windows(tables, key), strict=True)
            if window is not None and window.curved
        )

    def _series(self, study: str, part: SeriesPart, number: int, window: Window | None) -> dict[str, Any]:
        first = part.instances.iloc[0]
        stack = part.part if isinstance(part.part, Stack) else None
        places = _places(part, stack)
        low, high = part.instances["pixel_min"].min(), part.instances["pixel_max"].max()
        if window is not None and window.curved:
            low, high = 0, WHITE
        return {
            "key": f"{number}",
            "label": _label(part, stack),
            "modality": first["modality"],
            "color": int(first["samples"]) > 1 or first["photometric"] == "PALETTE COLOR",
            "rows": int(first["rows"]),
            "columns": int(first["columns"]),
            "spacing": _spacing(part, stack),
            "window": None if window is None else {"center": window.center, "width": window.width},
            "range": [float(low), float(high)],
            "frames": [
                {"url": frame_address(study, name, frame), **place}
                for name, frame, place in zip(
                    part.instances["object"], part.instances["frame"], places, strict=True
                )
            ],
        }


class _Tables:
    """The catalog's instances, by study and patient."""

    def __init__(self, instances: pd.DataFrame) -> None:
        self._instances = instances
        self._parts: dict[str, list[SeriesPart]] = {}
        #: Of the parts of a study that was looked at.
        self.windows: dict[str, list[Window | None]] = {}

    @cached_property
    def _by_study(self) -> dict[str, pd.DataFrame]:
        return {str(study): rows for study, rows in self._instances.groupby("study", sort=False)}

    @cached_property
    def _patient(self) -> pd.DataFrame:
        columns = ["study", "patient", "study_date"]
        return self._instances[columns].drop_duplicates("study").set_index("study")

    @cached_property
    def _objects(self) -> dict[str, str]:
        return dict(zip(self._instances["instance"], self._instances["object"], strict=True))

    def object_of(self, image: str) -> str | None:
        return self._objects.get(image)

    def around(self, study: str) -> Iterator[tuple[str, int | None]]:
        """Yield the case, then its patient's other studies, with the days by which they are earlier."""
        yield study, 0
        if study not in self._patient.index:
            return
        patient, day = self._patient.loc[study, ["patient", "study_date"]]
        others = self._patient[self._patient["patient"] == patient].drop(index=study)
        dated = [(other, _days(day, then)) for other, then in others["study_date"].items()]
        # Only what came before: the reader of today knew nothing of tomorrow.
        yield from sorted(
            ((str(other), days) for other, days in dated if days is not None and days >= 0),
            key=lambda pair: (pair[1], pair[0]),
        )

    def parts(self, study: str) -> list[SeriesPart]:
        if study not in self._parts:
            rows = self._by_study.get(study)
            self._parts[study] = [] if rows is None else series_parts(rows)
        return self._parts[study]

    def objects_of(self, study: str) -> dict[str, int]:
        """Return the frames of every object that a reader of this case may see."""
        held = [self._by_study[key] for key, _ in self.around(study) if key in self._by_study]
        return {
            name: max(1, int(frames))
            for rows in held
            for name, frames in zip(rows["object"], rows["frames"], strict=True)
        }


def _middle(part: SeriesPart) -> tuple[str, int]:
    """Return object and number of the frame that says how the whole series is shown."""
    middle = part.instances.iloc[len(part.instances) // 2]
    return str(middle["object"]), int(middle["frame"])


def _label(part: SeriesPart, stack: Stack | None) -> str:
    first, count = part.instances.iloc[0], len(part.instances)
    words = [str(first["modality"])]
    words += [str(first["body_part"]).title()] if isinstance(first["body_part"], str) else []
    words += [str(first["view"])] if isinstance(first["view"], str) else []
    if stack is not None and count > 1:
        words.append(f"{float(stack.spacing[0]):.1f} mm")
    words.append(f"{count} images" if count > 1 else "1 image")
    return " · ".join(words)


def _spacing(part: SeriesPart, stack: Stack | None) -> list[float] | None:
    if stack is not None:
        return [float(value) for value in stack.spacing[1:]]
    return None


def _reference(part: SeriesPart, numbers: dict[str, str]) -> str | None:
    """Return the number of a stack's frame of reference; None where it is not known or nothing has a position."""
    told = part.instances["frame_of_reference"].iloc[0]
    if not isinstance(part.part, Stack) or not isinstance(told, str) or not told:
        return None
    return numbers.setdefault(told, str(len(numbers)))


def _places(part: SeriesPart, stack: Stack | None) -> list[dict[str, Any]]:
    nowhere = {"position": None, "orientation": None}
    if stack is None:
        return [nowhere] * len(part.instances)
    columns = np.asarray(stack.affine, np.float64)
    along_rows, along_columns = columns[:3, 2], columns[:3, 1]
    orientation = [
        *(along_rows / np.linalg.norm(along_rows)),
        *(along_columns / np.linalg.norm(along_columns)),
    ]
    return [
        {
            "position": (columns[:3, 3] + n * columns[:3, 0]).tolist(),
            "orientation": [float(v) for v in orientation],
        }
        for n in range(len(part.instances))
    ]


def _days(day: Any, then: Any) -> int | None:
    if not isinstance(day, str) or not isinstance(then, str):
        return None
    return (date.fromisoformat(day) - date.fromisoformat(then)).days


def _when(days: int | None) -> str:
    if not days:
        return "same day"
    return "1 day earlier" if days == 1 else f"{days} days earlier"
