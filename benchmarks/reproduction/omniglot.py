"""Omniglot as the few-shot papers use it: Vinyals' split, rotations by 90° as classes of their own.

Brenden M. Lake, Ruslan Salakhutdinov, Joshua B. Tenenbaum: *Human-level concept learning through probabilistic
program induction*, Science 2015. The folder holds ``images_background.zip``, ``images_evaluation.zip`` and
``splits/vinyals/{train,val,trainval,test}.txt`` with lines such as ``Angelic/character01/rot090``.
"""

from __future__ import annotations

import io
import os
import sys
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from meta_dx.episodes.episode import Episode

Drawings = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Omniglot:
    """Drawings of some classes: (classes, 20, side, side) uint8, strokes 255 on 0."""

    drawings: Drawings

    def episode(self, rng: np.random.Generator, tasks: int, ways: int, shots: int, queries: int) -> Episode:
        """Draw E tasks of N classes with K support and Q query drawings each, as images (E, S, 1, side, side)."""
        support, query = [], []
        for _ in range(tasks):
            classes = rng.choice(len(self.drawings), ways, replace=False)
            order = rng.permuted(np.tile(np.arange(20), (ways, 1)), axis=1)[:, : shots + queries]
            drawn = self.drawings[classes[:, None], order]  # (N, K + Q, side, side)
            support.append(drawn[:, :shots].reshape(-1, 1, *drawn.shape[2:]))
            query.append(drawn[:, shots:].reshape(-1, 1, *drawn.shape[2:]))
        x, q = torch.from_numpy(np.stack(support)).float(), torch.from_numpy(np.stack(query)).float()
        y = torch.arange(ways).repeat_interleave(shots).expand(tasks, -1)
        asked = torch.arange(ways).repeat_interleave(queries).expand(tasks, -1)
        return Episode(
            x,
            y,
            torch.ones_like(y, dtype=torch.bool),
            q,
            asked,
            torch.ones_like(asked, dtype=torch.bool),
            torch.ones(tasks, ways, dtype=torch.bool),
        )


def data_folder() -> Path:
    """Return where Omniglot lies; ends with a sentence when it is not there."""
    root = os.environ.get("META_DX_DATA")
    folder = Path(root or "") / "omniglot"
    if not root or not (folder / "images_background.zip").exists():
        sys.exit(
            "Omniglot is not there: set META_DX_DATA to the folder that holds omniglot/images_background.zip."
        )
    return folder


def load(folder: Path, split: str, side: int, cache: Path, *, rotations: bool = True) -> Omniglot:
    """Read the classes of a split.

    Parameters
    ----------
    folder : Path
        Omniglot's folder.
    split : str
        ``train``, ``val``, ``trainval`` or ``test``.
    side : int
        Height and width in pixels.
    cache : Path
        Folder for the resized drawings.
    rotations : bool
        The rotated classes too (test: 1692 classes with, 423 without).
    """
    names = (folder / "splits" / "vinyals" / f"{split}.txt").read_text().split()
    upright = _upright(folder, side, cache)
    drawings = []
    for name in names:
        character, _, turn = name.rpartition("/rot")
        if rotations or turn == "000":
            drawings.append(np.rot90(upright[character], int(turn) // 90, axes=(1, 2)))
    return Omniglot(np.stack(drawings))


def _upright(folder: Path, side: int, cache: Path) -> dict[str, Drawings]:
    """Return character → its 20 drawings (20, side, side)."""
    kept = cache / f"omniglot-{side}.npz"
    if not kept.exists():
        found: dict[str, list[Drawings]] = defaultdict(list)
        for part in ("images_background", "images_evaluation"):
            with zipfile.ZipFile(folder / f"{part}.zip") as archive:
                for name in sorted(n for n in archive.namelist() if n.endswith(".png")):
                    picture = Image.open(io.BytesIO(archive.read(name))).convert("L")
                    small = picture.resize((side, side), Image.Resampling.BILINEAR)
                    found[name.split("/", 1)[1].rpartition("/")[0]].append(255 - np.asarray(small))
        cache.mkdir(parents=True, exist_ok=True)
        beside = kept.with_suffix(".tmp.npz")
        np.savez(beside, **{name: np.stack(drawings) for name, drawings in found.items()})
        beside.rename(kept)
    with np.load(kept) as content:
        return {name: content[name] for name in content.files}
