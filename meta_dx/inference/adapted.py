"""One adapted network as a folder: ``network.onnx`` and a manifest that says what it is.

For learners whose state is a network, so that they can be in no bundle: the confirmed cases are in the weights,
once and for all. Reading and using such a folder needs no torch; only :func:`write_adapted` does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import meta_dx
from meta_dx.cohort.preprocessing import PREPROCESSING_VERSION, ImageOptions
from meta_dx.errors import MetaDxError
from meta_dx.home import new_folder, storage_faults, write_bytes, write_json
from meta_dx.inference.card import RESEARCH_USE, package_version
from meta_dx.inference.manifest import ADAPTED, MANIFEST
from meta_dx.inference.providers import open_session

if TYPE_CHECKING:
    from torch import nn

NETWORK = "network.onnx"
_LAYOUT = 1

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ConfirmedDisease:
    """A class of the network: what it stands for, and on how many confirmed studies it rests."""

    code: str
    scheme: str
    meaning: str
    confirmed: int


@dataclass(frozen=True)
class AdaptedParts:
    """What :func:`write_adapted` puts together.

    Parameters
    ----------
    network : nn.Module
        Images 0..255 (B, C, *spatial) → logits (B, N), each image by itself, in evaluation mode.
    diseases : tuple of ConfirmedDisease, length N
        In the order of the logits.
    image_options : ImageOptions
        How pictures are prepared.
    pools_logits : bool
        A study of several images is answered by the mean of their logits; else by that of their probabilities.
    batch_norm : str
        Whose statistics are fixed in its batch norm.
    learner : mapping
        Name and options.
    about : mapping
        Where it came from, as plain values: versions and fingerprints, never identifiers.
    """

    network: nn.Module
    diseases: tuple[ConfirmedDisease, ...]
    image_options: ImageOptions
    pools_logits: bool
    batch_norm: str
    learner: Mapping[str, Any]
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AdaptedNetwork:
    """One adapted network on disk, verified.

    Parameters
    ----------
    path : Path
        Its folder.
    manifest : dict
        ``manifest.json``.
    """

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def load(cls, path: Path | str) -> AdaptedNetwork:
        """Read a folder and compare its network with the hash in the manifest.

        Raises
        ------
        MetaDxError
            ``no_adapted_network`` where there is none, ``adapted_network_damaged`` when a file is missing or changed.
        """
        folder = Path(path)
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
            kind, layout = manifest["kind"], manifest["layout"]
        except (OSError, ValueError, KeyError, TypeError) as fault:
            raise _none_there(folder) from fault
        if kind != ADAPTED:
            raise _none_there(folder)
        file = folder / NETWORK
        fits = layout == _LAYOUT and file.is_file()
        if not fits or hashlib.sha256(file.read_bytes()).hexdigest() != _hash_in(manifest):
            raise MetaDxError(
                "adapted_network_damaged",
                f"{folder} is not what 'meta-dx export-adapted' wrote, {NETWORK} is missing or was changed, or another "
                "version of meta_dx made it: export it again.",
            )
        return cls(folder, manifest)

    @property
    def codes(self) -> tuple[str, ...]:
        """Disease code of each class."""
        return tuple(disease["code"] for disease in self.manifest["diseases"])

    def study(self, images: npt.NDArray[np.uint8], device: str = "cpu") -> Floats:
        """Answer one study.

        Parameters
        ----------
        images : ndarray of uint8, shape (n, C, *spatial)
            Its pictures, prepared as the manifest says.
        device : {"cpu", "cuda", "auto"}
            Where to run.

        Returns
        -------
        ndarray of float64, shape (N,)
            Probabilities, not calibrated.
        """
        session = open_session(self.path / NETWORK, device)
        logits, shares = session.run(
            ["logits", "probabilities"], {"images": np.ascontiguousarray(images, dtype=np.uint8)}
        )
        if self.manifest["several_images"] == "mean of probabilities":
            return np.asarray(shares.mean(0, dtype=np.float64), dtype=np.float64)
        pooled = np.asarray(logits, dtype=np.float64).mean(0)
        powers = np.exp(pooled - pooled.max())
        return np.asarray(powers / powers.sum(), dtype=np.float64)


def require_empty(folder: Path) -> None:
    """Refuse to write over anything.

    Raises
    ------
    MetaDxError
        ``not_empty``.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MetaDxError(
            "not_empty", f"{folder} is there already and not empty: name a new folder with --out."
        )


def write_adapted(folder: Path, parts: AdaptedParts) -> AdaptedNetwork:
    """Export a network, check it against torch, and write its folder: all of it or nothing.

    Parameters
    ----------
    folder : Path
        Must be new or empty.
    parts : AdaptedParts
        What goes in.

    Returns
    -------
    AdaptedNetwork

    Raises
    ------
    MetaDxError
        ``not_empty``, or a storage fault.
    meta_dx.inference.export.ExportError
        When the graph does not answer as torch does.
    """
    from meta_dx.inference.export import OPSET
    from meta_dx.inference.network_graph import network_graph

    require_empty(folder)
    options = parts.image_options
    shape = options.shape
    data = network_graph(parts.network, shape, len(parts.diseases))
    manifest = {
        "kind": ADAPTED,
        "layout": _LAYOUT,
        "use": RESEARCH_USE,
        "learner": dict(parts.learner),
        "diseases": [asdict(disease) for disease in parts.diseases],
        "network": {
            "file": NETWORK,
            "sha256": hashlib.sha256(data).hexdigest(),
            "input": {"images": ["B", *shape], "dtype": "uint8", "range": [0, 255]},
            "outputs": {"logits": ["B", len(parts.diseases)], "probabilities": ["B", len(parts.diseases)]},
            "opset": OPSET,
        },
        "batch_norm": parts.batch_norm,
        "calibrated": False,
        "several_images": f"mean of {'logits' if parts.pools_logits else 'probabilities'}",
        "preprocessing": {"version": PREPROCESSING_VERSION, "options": asdict(options)},
        **parts.about,
        "versions": {
            "meta_dx": meta_dx.__version__,
            "torch": package_version("torch"),
            "onnxruntime": package_version("onnxruntime-gpu", "onnxruntime"),
        },
    }
    with storage_faults(folder):
        if folder.is_dir():
            folder.rmdir()  # empty: not every system renames over a folder
    with new_folder(folder) as draft:
        write_bytes(draft / NETWORK, data)
        write_json(draft / MANIFEST, manifest)
    written = AdaptedNetwork.load(folder)
    if written.manifest["network"] != manifest["network"]:  # somebody else's, in the same moment
        require_empty(folder)
    return written


def _none_there(folder: Path) -> MetaDxError:
    return MetaDxError(
        "no_adapted_network",
        f"{folder} holds no adapted network: name a folder that 'meta-dx export-adapted' wrote.",
    )


def _hash_in(manifest: dict[str, Any]) -> str:
    network = manifest.get("network")
    return str(network.get("sha256")) if isinstance(network, dict) else ""
