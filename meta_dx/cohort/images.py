"""The ``ImageStore``: a home's prepared pictures in memory-mapped shards, and the rule which of them count.

Input are the catalog's instances and the stored objects. Pictures lie in ``<home>/images/<look>``, in
folders of at most 2048 for each ingest batch, written once and never changed. Which images of a study count
is decided afresh over all batches each time; only pictures that are missing are prepared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.preprocessing import ImageOptions, preprocess
from meta_dx.cohort.rendering import Rendered, Renderer, renderer
from meta_dx.cohort.volume_images import candidate_volumes
from meta_dx.cohort.volumes import SeriesPart
from meta_dx.dicom.reading import ReadLimits
from meta_dx.dicom.rejections import RejectionCode
from meta_dx.home import Home, fingerprint_of, new_folder, storage_faults, write_json
from meta_dx.progress import Progress, silent

__all__ = ["ImageOptions", "ImageStore", "ShardedImages", "preprocess", "select_images"]

_SHARD = 2048  # pictures in a folder; a killed run loses at most this much work
_VOLUMES = 64  # the same for volumes
_UNREADABLE = "unreadable"
#: Why there is no picture, by what stands in the place of its place.
_WHY_NOT = {
    -1: _UNREADABLE,
    -2: RejectionCode.TIME_LIMIT.value,
    -3: RejectionCode.MEMORY_LIMIT.value,
    -4: RejectionCode.WORKER_CRASHED.value,
}
_NO_PLACE = {why: place for place, why in _WHY_NOT.items()}
_ORDER = ["study", "series", "position", "instance_number", "instance", "frame"]


def select_images(frames: pd.DataFrame, options: ImageOptions) -> pd.DataFrame:
    """Choose the images that count: those that pass the filters, at most ``max_images`` of a study.

    Each series in turn gives one image until the study has enough; the images of a series are taken from the
    middles of equal parts of it (one image: the middle slice). Where a study has more series than
    ``max_images``, the series are spread in the same way, in the order of their UIDs.

    Parameters
    ----------
    frames : DataFrame
        One row per image: ``study``, ``series``, ``instance``, ``position``, ``instance_number``, ``frame``,
        ``modality``, ``view``, ``body_part``.
    options : ImageOptions
        Filters and ``max_images``.

    Returns
    -------
    DataFrame
        The chosen rows, in the order study, series, position, instance number, instance, frame. Choosing
        again among them changes nothing.
    """
    wanted = frames[_passes(frames, options)].sort_values(_ORDER, na_position="last", kind="stable")
    places = np.arange(len(wanted))
    many = wanted.groupby("study")["study"].transform("size").to_numpy() > options.max_images
    kept = [places[~many]]
    for _, study in pd.Series(places[many], index=wanted["study"][many]).groupby(level=0):
        rows = study.to_numpy()
        by_series = pd.Series(rows).groupby(wanted["series"].to_numpy()[rows])
        kept.append(_spread_over_series([part.to_numpy() for _, part in by_series], options.max_images))
    return wanted.iloc[np.sort(np.concatenate(kept))]


class ShardedImages:
    """Images that lie in several memory-mapped arrays, read by row; shape (n, C, *spatial), uint8.

    Parameters
    ----------
    shards : sequence of ndarray
        The arrays, each (k, C, *spatial).
    shard, place : ndarray of int64, shape (n,)
        In which array, and where in it, each row lies.
    shape : tuple of int
        Shape of an image: (C, H, W), or (C, D, H, W) of a volume.
    """

    def __init__(
        self,
        shards: Sequence[npt.NDArray[np.uint8]],
        shard: npt.NDArray[np.int64],
        place: npt.NDArray[np.int64],
        shape: tuple[int, ...],
    ) -> None:
        self._shards, self._shard, self._place = shards, shard, place
        self.shape = (len(shard), *shape)
        self.ndim = len(self.shape)
        self.dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> npt.NDArray[np.uint8]:
        """Return the image at a row (C, *spatial), or those at a slice, indices or a mask (k, C, *spatial)."""
        chosen = np.arange(len(self))[rows]
        flat = np.atleast_1d(chosen)
        out = np.empty((len(flat), *self.shape[1:]), dtype=np.uint8)
        for number in np.unique(self._shard[flat]):
            here = self._shard[flat] == number
            out[here] = self._shards[number][self._place[flat[here]]]
        return out if chosen.ndim else out[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self.load().astype(dtype or np.uint8, copy=False)

    def subset(self, rows: npt.NDArray[np.int64]) -> ShardedImages:
        """Return the pictures at these rows as a view: nothing is read until it is asked for."""
        return ShardedImages(self._shards, self._shard[rows], self._place[rows], self.shape[1:])

    def load(self) -> npt.NDArray[np.uint8]:
        """Read everything into memory."""
        return self[:]


@dataclass(frozen=True)
class ImageStore:
    """The images of a home that count, prepared.

    Parameters
    ----------
    options : ImageOptions
        How they were chosen and prepared.
    images : ShardedImages
        Pictures (n, C, H, W), or volumes (n, C, D, H, W), uint8.
    index : DataFrame
        One row per image, in the order of ``images``: ``row``, ``frame``, and the catalog's columns of the
        instance (``instance``, ``study``, ``series``, ``patient``, ``batch``, …); of a volume those of its middle
        slice, but ``object`` is the volume's own name.
    left_out : dict of str to int
        Images that do not count: ``filtered``, ``beyond_max_images`` (frames), ``unreadable``, and those whose
        preparing cost a process: ``time_limit``, ``memory_limit``, ``worker_crashed``. With ``dimensions = 3`` also
        why series, or parts of one, are no volume (:class:`~meta_dx.dicom.volume_reasons.VolumeReason`).
    version : str
        Hash of the options and of every picture's object and frame.
    """

    options: ImageOptions
    images: ShardedImages
    index: pd.DataFrame
    left_out: dict[str, int]
    version: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (n, C, *spatial)."""
        return self.images.shape

    def load(self) -> npt.NDArray[np.uint8]:
        """Read all images into memory, shape (n, C, *spatial)."""
        return self.images.load()

    @classmethod
    def build(
        cls,
        home: Home,
        catalog: Catalog,
        options: ImageOptions,
        *,
        limits: ReadLimits | None = None,
        workers: int = 0,
        progress: Progress = silent,
        executor: Executor | None = None,
    ) -> ImageStore:
        """Prepare what is missing and open the store; with nothing new, only open it.

        Parameters
        ----------
        home : Home
            Whose images.
        catalog : Catalog
            Its catalog.
        options : ImageOptions
            Which images count and how they are prepared.
        limits : ReadLimits, optional
            What preparing one object may take (a volume has as much memory more as it needs).
        workers : int
            Processes that prepare; 0: one a core, eight at most. The pictures are the same.
        progress : Progress
            Called with the number of pictures prepared.
        executor : Executor, optional
            Where those processes are started; default threads of this process.

        Returns
        -------
        ImageStore

        Raises
        ------
        MetaDxError
            A storage fault, or ``object_missing``, ``object_unreadable`` or ``object_damaged``.
        """
        parts: dict[str, SeriesPart] = {}
        no_volume: dict[str, int] = {}
        if options.dimensions == 3:
            instances = catalog.instances()
            wanted = _passes(instances, options)
            frames, parts, no_volume = candidate_volumes(instances[wanted], options)
            filtered = int((~wanted).sum())
        else:
            frames = _candidate_frames(catalog.instances(), options)
            filtered = len(frames) - int(_passes(frames, options).sum())
        chosen = select_images(frames, options).reset_index(drop=True)
        folder = home.images / options.picture_hash()
        if not (folder / "options.json").exists():
            write_json(folder / "options.json", options)
        known = _Shards.open(folder)
        while len(missing := known.lacking(chosen)):
            with renderer(
                home, options, parts, limits or ReadLimits(), workers=workers, executor=executor
            ) as pictures:
                _prepare(folder, missing, pictures, progress)
            known = _Shards.open(folder)
        where = np.array([known.places[key] for key in _keys(chosen)], dtype=np.int64).reshape(-1, 2)
        good = where[:, 1] >= 0
        index = chosen[good].reset_index(drop=True)
        index.insert(0, "row", np.arange(len(index)))
        images = ShardedImages(known.arrays, where[good, 0], where[good, 1], options.shape)
        counts = {
            "filtered": filtered,
            "beyond_max_images": int(_passes(frames, options).sum()) - len(chosen),
            **{why: int((where[:, 1] == place).sum()) for place, why in _WHY_NOT.items()},
            **no_volume,
        }
        version = fingerprint_of({"options": options, "images": _keys(index)})
        return cls(options, images, index, {name: n for name, n in counts.items() if n}, version)


@dataclass(frozen=True)
class _Shards:
    """The finished folders of one look: arrays, and (shard, place) of each picture; below 0: none, see ``_WHY_NOT``."""

    arrays: list[npt.NDArray[np.uint8]]
    places: Mapping[tuple[str, int], tuple[int, int]]

    @classmethod
    def open(cls, folder: Path) -> _Shards:
        arrays: list[npt.NDArray[np.uint8]] = []
        places: dict[tuple[str, int], tuple[int, int]] = {}
        for number, table in enumerate(sorted(folder.glob("[!.]*/index.parquet"))):
            arrays.append(np.load(table.with_name("images.npy"), mmap_mode="r"))
            index = pd.read_parquet(table)
            for key, place in zip(_keys(index), index["place"].tolist(), strict=True):
                places.setdefault(key, (number, place))
        return cls(arrays, places)

    def lacking(self, frames: pd.DataFrame) -> pd.DataFrame:
        """Return the rows whose picture nobody has prepared yet."""
        return frames[[key not in self.places for key in _keys(frames)]]


def _keys(frames: pd.DataFrame) -> list[tuple[str, int]]:
    return list(zip(frames["object"].tolist(), frames["frame"].tolist(), strict=True))


def _candidate_frames(instances: pd.DataFrame, options: ImageOptions) -> pd.DataFrame:
    """Return one row per image that could count: of a multi-frame instance, frames spread evenly over it."""
    frames = instances["frames"].fillna(1).clip(lower=1).astype(int).to_numpy()
    picked = [_middles(int(count), options.max_images) for count in frames]
    rows = np.repeat(np.arange(len(instances)), [len(part) for part in picked])
    table = instances.iloc[rows].reset_index(drop=True)
    table["frame"] = np.concatenate([*picked, np.zeros(0, dtype=np.int64)])  # also right for no instance
    return table


def _middles(count: int, most: int) -> npt.NDArray[np.int64]:
    """Return the middles of ``min(count, most)`` equal parts of 0 … count - 1."""
    parts = min(count, most)
    return ((np.arange(parts) * 2 + 1) * count // (2 * parts)).astype(np.int64)


def _passes(frames: pd.DataFrame, options: ImageOptions) -> npt.NDArray[np.bool_]:
    passed = np.ones(len(frames), dtype=bool)
    for column, allowed in (
        ("modality", options.modalities),
        ("view", options.views),
        ("body_part", options.body_parts),
    ):
        if allowed:
            names = {name.strip().upper() for name in allowed}
            passed &= frames[column].fillna("").str.strip().str.upper().isin(names).to_numpy()
    return passed


def _spread_over_series(series: list[npt.NDArray[np.int64]], most: int) -> npt.NDArray[np.int64]:
    """Choose ``most`` of a study's images, given by series, fairly over the series and evenly within each."""
    series = [series[n] for n in _middles(len(series), most)]
    shares = [0] * len(series)
    while sum(shares) < min(most, sum(map(len, series))):
        for n, rows in enumerate(series):
            if shares[n] < len(rows) and sum(shares) < most:
                shares[n] += 1
    return np.concatenate(
        [rows[_middles(len(rows), share)] for rows, share in zip(series, shares, strict=True)]
    )


def _prepare(folder: Path, missing: pd.DataFrame, pictures: Renderer, progress: Progress) -> None:
    """Write new shards for the missing images, batch by batch."""
    done, most = 0, _VOLUMES if pictures.volumes else _SHARD
    for batch, rows in missing.groupby("batch", sort=True):
        for start in range(0, len(rows), most):
            part = rows.iloc[start : start + most]
            with new_folder(_free_name(folder, str(batch))) as shard:
                places: list[int] = []
                array = np.lib.format.open_memmap(
                    shard / "images.npy", "w+", np.uint8, (len(part), *pictures.options.shape)
                )
                for some in pictures.rendered(_keys(part)):
                    for picture in some:
                        places.append(_put(array, len(places), picture))
                    progress(done + len(places), len(missing))
                with storage_faults(shard):
                    array.flush()
                index = part[["object", "frame", "instance", "study", "series", "batch"]]
                index.assign(place=places).to_parquet(shard / "index.parquet", index=False)
            done += len(part)


def _put(array: npt.NDArray[np.uint8], place: int, picture: Rendered) -> int:
    if isinstance(picture, RejectionCode):
        return _NO_PLACE.get(picture.value, _NO_PLACE[_UNREADABLE])
    array[place] = picture
    return place


def _free_name(folder: Path, batch: str) -> Path:
    number, path = 1, folder / batch
    while path.exists():
        number += 1
        path = folder / f"{batch}-{number}"
    return path
