"""The bundle: one immutable folder with everything that a prediction needs, in MONAI's Bundle layout.

``configs/`` says what it is and how pictures are prepared, ``models/`` holds the ONNX graphs,
``docs/README.md`` is the model card, and ``manifest.json`` the SHA-256 of each file. The SHA-256 of the
manifest names the bundle: the same weights and options give the same name, and whoever changes a byte gets
another one, or an error. Reading a bundle needs neither torch nor MONAI.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from meta_dx.cohort.preprocessing import PREPROCESSING_VERSION, ImageOptions
from meta_dx.errors import MetaDxError
from meta_dx.home import Home, new_folder, storage_faults, write_bytes, write_json, write_text
from meta_dx.inference.calibration import Calibration
from meta_dx.inference.card import metadata_of, model_card
from meta_dx.inference.manifest import MANIFEST, identity, manifest_of, named_files, verify

if TYPE_CHECKING:
    from torch import nn

    from meta_dx.learners.base import Head

#: Samples of a latent variable in use; in the evaluation there are fewer.
SAMPLES = 64

_METADATA = "configs/metadata.json"
_PREPROCESSING = "configs/preprocessing.json"
_ENCODER = "models/encoder.onnx"
_MEAN = "models/embedding_mean.npy"
_CARD = "docs/README.md"
_POINTER = "latest.json"
_SEEN = ("common", "validation")


@dataclass(frozen=True)
class BundleParts:
    """What :func:`write_bundle` puts together.

    Parameters
    ----------
    encoder : nn.Module
        Images 0..255 (B, C, H, W) → embeddings (B, D), normalisation inside.
    heads : mapping of str to Head
        Heads by name, for example ``prototypical``, ``simpleshot`` and ``logistic``.
    serving_head : str
        The one that predictions come from, chosen on validation diseases.
    image_options : ImageOptions
        How pictures are prepared.
    embedding_size : int
        D.
    calibrations : mapping of str to Calibration
        Temperature of each head; a head that is missing keeps T = 1.
    base_mean : array_like, shape (D,), optional
        Mean embedding of the common diseases, by which evidence is centred; zero if absent.
    backbone, learner : mapping
        Options of the network and of the head that serves, as plain values.
    seed : int
        Of the run.
    cohort, data_version : str
        Name of the cohort, and version of the data that was trained on.
    split_version : int or str
        Version of the frozen split.
    fingerprint : mapping
        Fingerprint of the training cohort (counts, never identifiers).
    diseases : mapping of str to str
        Disease code → role; only those that were seen (``common``, ``validation``) are kept.
    validation : mapping
        Figures on the validation diseases.
    max_shots : int, optional
        Cap on K that the cohort serves with, ``[serve] max_shots``.
    samples : int
        M, samples of the latent variable that an answer is the mean of, for heads that have one.
    allowed_pictures : tuple of str
        ``[ingest] allow`` of the cohort: kinds of pictures that it took although they may show whose they are.
    """

    encoder: nn.Module
    heads: Mapping[str, Head]
    serving_head: str
    image_options: ImageOptions
    embedding_size: int
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    base_mean: npt.ArrayLike | None = None
    backbone: Mapping[str, Any] = field(default_factory=dict)
    learner: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    cohort: str = ""
    data_version: str = ""
    split_version: int | str = 0
    fingerprint: Mapping[str, Any] = field(default_factory=dict)
    diseases: Mapping[str, str] = field(default_factory=dict)
    validation: Mapping[str, Any] = field(default_factory=dict)
    max_shots: int | None = None
    samples: int = SAMPLES
    allowed_pictures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bundle:
    """A verified bundle on disk.

    Parameters
    ----------
    path : Path
        Its folder.
    id : str
        The first 16 digits of the SHA-256 of its manifest.
    metadata : dict
        ``configs/metadata.json``.
    preprocessing : dict
        ``configs/preprocessing.json``.
    """

    path: Path
    id: str
    metadata: dict[str, Any]
    preprocessing: dict[str, Any]

    @classmethod
    def load(cls, path: Path | str) -> Bundle:
        """Read a bundle and verify each of its files.

        Parameters
        ----------
        path : Path or str
            The folder.

        Returns
        -------
        Bundle

        Raises
        ------
        MetaDxError
            ``no_bundle`` where there is none, ``bundle_layout`` for one of another version,
            ``bundle_damaged`` when a file is missing, changed, or not named in the manifest.
        """
        folder = Path(path)
        manifest = folder / MANIFEST
        if not manifest.is_file():
            raise MetaDxError(
                "no_bundle",
                f"{folder} is no bundle, it has no {MANIFEST}: name the folder that 'export' printed.",
            )
        content = manifest.read_bytes()
        verify(folder, named_files(folder, content), (_METADATA, _PREPROCESSING, _ENCODER, _MEAN))
        metadata = json.loads((folder / _METADATA).read_bytes())
        preprocessing = json.loads((folder / _PREPROCESSING).read_bytes())
        return cls(folder, identity(content), metadata, preprocessing)

    @property
    def max_shots(self) -> int | None:
        """Cap on the confirmed patients of a disease that its cohort serves with, if it said so."""
        found: int | None = self._ours.get("max_shots")
        return found

    @property
    def allowed_pictures(self) -> tuple[str, ...]:
        """Kinds of pictures that its cohort took although they may show whose they are, ``[ingest] allow``."""
        return tuple(self._ours.get("allowed_pictures", ()))

    @property
    def samples(self) -> int:
        """M, samples of the latent variable that an answer is the mean of, for heads that have one."""
        return int(self._ours.get("samples", SAMPLES))

    @property
    def serving_head(self) -> str:
        """Name of the head that predictions come from."""
        return str(self._ours["serving_head"])

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of all heads, sorted."""
        return tuple(self._ours["heads"])

    @property
    def embedding_size(self) -> int:
        """D."""
        return int(self._ours["embedding_size"])

    @property
    def seen_diseases(self) -> dict[str, str]:
        """Disease code → role, of those that were trained or chosen on: they cannot be a test."""
        return dict(self._ours["diseases_seen"])

    @property
    def image_options(self) -> ImageOptions:
        """How pictures are prepared.

        Raises
        ------
        MetaDxError
            ``bundle_preprocessing`` when this version of meta_dx prepares pictures in another way.
        """
        if self.preprocessing["version"] != PREPROCESSING_VERSION:
            raise MetaDxError(
                "bundle_preprocessing",
                f"Bundle {self.id} wants pictures of preprocessing version {self.preprocessing['version']}, "
                f"this meta_dx makes version {PREPROCESSING_VERSION}: train and export again, or install the "
                "meta_dx that made it.",
            )
        return ImageOptions(**_with_tuples(self.preprocessing["options"]))

    @property
    def embedding_mean(self) -> npt.NDArray[np.float32]:
        """Mean embedding of the common diseases, shape (D,)."""
        mean: npt.NDArray[np.float32] = np.load(self.path / _MEAN, allow_pickle=False)
        return mean

    @property
    def encoder_path(self) -> Path:
        """The encoder's graph."""
        return self.path / _ENCODER

    def adapt_path(self, head: str) -> Path:
        """Return the graph that adapts this head to a support set."""
        return self.path / "models" / self._known(head) / "adapt.onnx"

    def predict_path(self, head: str) -> Path:
        """Return the graph that answers queries from this head's state."""
        return self.path / "models" / self._known(head) / "predict.onnx"

    def calibration(self, head: str) -> Calibration:
        """Return the temperature inside this head's graph, and what it did on validation diseases."""
        return Calibration(**_with_tuples(self._ours["calibration"][self._known(head)]))

    @property
    def _ours(self) -> dict[str, Any]:
        ours: dict[str, Any] = self.metadata["meta_dx"]
        return ours

    def _known(self, head: str) -> str:
        if head not in self.heads:
            raise MetaDxError(
                "unknown_head", f"Bundle {self.id} has no head '{head}': it has {', '.join(self.heads)}."
            )
        return head


def write_bundle(where: Home | Path, parts: BundleParts) -> Bundle:
    """Export every part, check it against torch, and keep it as one immutable folder.

    Parameters
    ----------
    where : Home or Path
        A home, whose latest bundle this becomes, or the folder in which the bundle's own folder is made.
    parts : BundleParts
        What goes in.

    Returns
    -------
    Bundle
        The same parts give the same bundle; one that is there already is left as it is.

    Raises
    ------
    MetaDxError
        ``serves_from_no_state`` for a learner whose state is a network; when the disk is full or read-only.
    meta_dx.inference.export.ExportError
        When a graph does not answer as torch does.
    """
    if parts.serving_head not in parts.heads:
        raise ValueError(f"serving_head {parts.serving_head!r} is not among the heads {sorted(parts.heads)}")
    for name, head in parts.heads.items():
        if not head.capabilities.serves_from_state:
            raise MetaDxError(
                "serves_from_no_state",
                f"'{name}' adapts a whole network and cannot live in a bundle that takes confirmed cases: export one "
                f"adapted network with 'meta-dx export-adapted --learner {name}'.",
            )
    store = where.bundles if isinstance(where, Home) else Path(where)
    with _draft_in(store) as draft:
        _fill(draft, parts)
        content = manifest_of(draft)
        write_bytes(draft / MANIFEST, content)
        final = store / identity(content)
        with new_folder(final) as folder:
            for child in draft.iterdir():
                child.rename(folder / child.name)
    bundle = Bundle.load(final)
    if isinstance(where, Home):
        make_latest(where, bundle)
    return bundle


def latest_bundle(home: Home) -> Bundle:
    """Load the bundle that was written last into a home.

    Raises
    ------
    MetaDxError
        ``no_bundle`` before the first; from :meth:`Bundle.load`.
    """
    pointer = home.bundles / _POINTER
    if not pointer.exists():
        raise MetaDxError(
            "no_bundle",
            f"The home {home.root} has no bundle yet: run 'make run', or 'meta-dx train' and then 'export'.",
        )
    return Bundle.load(home.bundles / json.loads(pointer.read_text())["bundle"])


def make_latest(home: Home, bundle: Bundle) -> None:
    """Point a home to one of its bundles, atomically; a pointer that is right is left alone."""
    pointer = home.bundles / _POINTER
    if not pointer.exists() or json.loads(pointer.read_text())["bundle"] != bundle.id:
        write_json(pointer, {"bundle": bundle.id})


@contextmanager
def _draft_in(store: Path) -> Iterator[Path]:
    with storage_faults(store):
        store.mkdir(parents=True, exist_ok=True)
        # Beside its final place, because a rename is atomic only within one file system.
        with tempfile.TemporaryDirectory(prefix=".draft-", dir=store) as scratch:
            draft = Path(scratch) / "bundle"
            draft.mkdir()
            yield draft


def _fill(draft: Path, parts: BundleParts) -> None:
    from meta_dx.inference.export import export_encoder, export_head

    options = parts.image_options
    image_shape = options.shape
    calibrations = {name: parts.calibrations.get(name, Calibration()) for name in sorted(parts.heads)}
    export_encoder(parts.encoder, image_shape, draft / _ENCODER)
    for name, calibration in calibrations.items():
        folder = draft / "models" / name
        export_head(
            parts.heads[name],
            parts.embedding_size,
            folder / "adapt.onnx",
            folder / "predict.onnx",
            calibration,
        )
    mean = np.zeros(parts.embedding_size) if parts.base_mean is None else np.asarray(parts.base_mean)
    if mean.shape != (parts.embedding_size,):
        raise ValueError(f"base_mean has shape {mean.shape}, not ({parts.embedding_size},)")
    stream = io.BytesIO()
    np.save(stream, mean.astype(np.float32), allow_pickle=False)
    write_bytes(draft / _MEAN, stream.getvalue())
    ours = {
        "heads": list(calibrations),
        "serving_head": parts.serving_head,
        "embedding_size": parts.embedding_size,
        "backbone": _without_folders(parts.backbone),
        "learner": dict(parts.learner),
        "seed": parts.seed,
        "calibration": {name: asdict(calibration) for name, calibration in calibrations.items()},
        "cohort": parts.cohort,
        "cohort_fingerprint": dict(parts.fingerprint),
        "data_version": parts.data_version,
        "split_version": parts.split_version,
        "diseases_seen": {c: role for c, role in sorted(parts.diseases.items()) if role in _SEEN},
        "validation": dict(parts.validation),
        "max_shots": parts.max_shots,
        "samples": parts.samples,
        "allowed_pictures": sorted(parts.allowed_pictures),
    }
    metadata = metadata_of(ours, image_shape)
    write_json(draft / _METADATA, metadata)
    write_json(draft / _PREPROCESSING, {"version": PREPROCESSING_VERSION, "options": asdict(options)})
    write_text(draft / _CARD, model_card(metadata))


def _without_folders(options: Mapping[str, Any]) -> dict[str, Any]:
    """Keep only the file name of weights to start from: where they lay on this machine is nobody's business."""
    return {name: Path(value).name if name == "weights" else value for name, value in options.items()}


def _with_tuples(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
