"""Look-up tables of an instance: the modality LUT and the palette.

Writers disagree with the standard about almost everything here (the width of entries, the sign of the first
value, byte order, empty items), so tables are read leniently, and refused where nothing can be made of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from meta_dx.dicom.rejections import RefusedError, RejectionCode

Array = npt.NDArray[Any]
Picture = npt.NDArray[np.float32]

_COLOURS = ("Red", "Green", "Blue")


def modality_lut(dataset: Dataset) -> tuple[Picture, int] | None:
    """Return the entries and the stored value of the first one; ``None`` where there is no table."""
    sequence = dataset.get("ModalityLUTSequence")
    if not sequence or not sequence[0].get("LUTDescriptor") or not sequence[0].get("LUTData"):
        return None  # some writers leave an empty item
    try:
        table, first, _ = lut_of(sequence[0], dataset)
    except (TypeError, ValueError) as fault:
        raise RefusedError(RejectionCode.PIXEL_DESCRIPTION, "the modality LUT is damaged") from fault
    return table, with_the_sign_of_the_pixels(first, dataset)


def lut_of(item: Dataset, dataset: Dataset) -> tuple[Picture, int, int]:
    """Return the entries of a look-up table, the value of the first one as it stands, and the bits of an entry.

    Raises
    ------
    TypeError, ValueError
        It is damaged or empty.
    """
    entries, first, depth = (int(value) for value in item.LUTDescriptor)
    data = item["LUTData"].value
    if isinstance(data, bytes):
        wide = depth > 8 or len(data) >= 2 * (entries or 65536)
        data = np.frombuffer(data, _word(dataset) if wide else np.uint8)
    table = np.asarray(data, np.float32).reshape(-1)[: entries or 65536]
    if not table.size:
        raise ValueError("the table is empty")
    return table, first, depth


def with_the_sign_of_the_pixels(value: int, dataset: Dataset) -> int:
    """Undo a wrong choice between US and SS: the value has the sign of the pixels."""
    allocated = int(dataset.BitsAllocated)
    if int(dataset.PixelRepresentation) == 1:
        half = 1 << (allocated - 1)
        return (value + half) % (2 * half) - half
    return value % (1 << allocated) if value < 0 else value


def palette_to_rgb(stored: Array, dataset: Dataset) -> Picture:
    """Return the colours (H, W, 3), from 0 to 255, of a frame (H, W) of indices.

    Raises
    ------
    RefusedError
        ``pixel_description``: a table is missing, too short or impossible.
    """
    try:
        if "RedPaletteColorLookupTableData" not in dataset:
            # Segmented palettes are rare and intricate: pydicom expands them.
            colours = apply_color_lut(stored, dataset)[..., :3]
            return scaled_to_255(colours, 8 * colours.dtype.itemsize)
        entries, first, depth = (int(value) for value in dataset.RedPaletteColorLookupTableDescriptor)
        tables = [_palette_table(dataset, colour, entries or 65536) for colour in _COLOURS]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as fault:
        raise RefusedError(RejectionCode.PIXEL_DESCRIPTION, "the palette is damaged") from fault
    index = np.clip(
        stored.astype(np.int64) - with_the_sign_of_the_pixels(first, dataset), 0, min(map(len, tables)) - 1
    )
    colours = np.stack([table[index] for table in tables], axis=-1)  # (H, W, 3)
    # Many writers announce 16 bits and fill 8 of them.
    deep = depth > 8 and max(int(table.max()) for table in tables) > 255
    return scaled_to_255(colours, 16 if deep else 8)


def palette_bytes(dataset: Dataset) -> list[bytes]:
    """Return everything that decides about the colours of a palette, to be compared."""
    tables = [
        f"{kind}{colour}PaletteColorLookupTableData" for kind in ("", "Segmented") for colour in _COLOURS
    ]
    found = [bytes(dataset[table].value or b"") if table in dataset else b"" for table in tables]
    descriptor = dataset.get("RedPaletteColorLookupTableDescriptor") or ()
    return [*found, repr([int(value) % 65536 for value in descriptor]).encode()]


def _palette_table(dataset: Dataset, colour: str, entries: int) -> Array:
    data = bytes(dataset[f"{colour}PaletteColorLookupTableData"].value)
    if len(data) >= 2 * entries:
        return np.frombuffer(data[: 2 * entries], _word(dataset))
    packed = data + b"\0" * (len(data) % 2)
    table = np.frombuffer(packed, _word(dataset)).astype("<u2").view(np.uint8)
    if len(table) < entries:
        raise RefusedError(RejectionCode.PIXEL_DESCRIPTION, "the palette is shorter than it says")
    return table[:entries]


def _word(dataset: Dataset) -> str:
    little = dataset.file_meta.TransferSyntaxUID.is_little_endian
    return "<u2" if little else ">u2"


def scaled_to_255(colours: Array, bits: int) -> Picture:
    """Return colours of any depth on a scale from 0 to 255."""
    if bits == 8:
        return colours.astype(np.float32)
    return (colours * np.float64(255.0 / ((1 << bits) - 1))).astype(np.float32)
