"""The process that prepares pictures: a reading process that decodes stored objects and makes them small.

It has the limits of every reader (:mod:`meta_dx.dicom.reader_process`) and no key. What goes back is the prepared
pictures, so the process that trains never decodes an object, and little has to pass between the two.
"""

from __future__ import annotations

# ruff: noqa: I001 - the reading process keeps unused libraries out when it is imported; this one is used
import PIL.Image as _used  # noqa: F401
from meta_dx.dicom.reader_process import Send, attempted, send_refusal, serve

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from meta_dx.cohort.objects import ObjectStore
from meta_dx.cohort.preprocessing import ImageOptions, Picture, preprocess
from meta_dx.cohort.volume_preprocessing import preprocess_volume
from meta_dx.dicom.display import displayed_pixels
from meta_dx.dicom.geometry import Stack
from meta_dx.dicom.pixels import physical_pixels
from meta_dx.dicom.rejections import Refusal, RefusedError, RejectionCode
from meta_dx.dicom.volumes import assemble, decoded_slices
from meta_dx.errors import MetaDxError
from meta_dx.home import Home

_NO_FAULT_OF_THE_FRAME = frozenset({RejectionCode.UNREADABLE_FILE, RejectionCode.MEMORY_LIMIT})


def main() -> None:
    """Answer requests to prepare pictures until there are no more."""
    serve(lambda _key, _limits: _answer)


def prepared_frame(dataset: Dataset, frame: int, options: ImageOptions) -> Picture:
    """Return one frame of an instance as the network sees it, shape (C, size, size)."""
    if options.intensity == "dicom":
        shown = displayed_pixels(dataset, frame)
        if shown is not None:
            return preprocess(shown, options, shown=True)
    return preprocess(physical_pixels(dataset, frame), options)


def _answer(words: dict[str, Any], send: Send) -> None:
    options, store = ImageOptions(**words["options"]), ObjectStore(Home(Path(words["home"])))
    opened = _Opened(store, lambda: send({"working": True}))
    (_answer_volume if words["do"] == "volume" else _answer_pictures)(words, opened, options, send)


def _answer_pictures(words: dict[str, Any], opened: _Opened, options: ImageOptions, send: Send) -> None:
    pictures = []
    for frame in words["frames"]:
        picture = attempted(partial(_picture, opened, words["name"], frame, options))
        if isinstance(picture, Refusal) and picture.code in _NO_FAULT_OF_THE_FRAME:
            send_refusal(send, picture)
            return
        pictures.append(b"" if isinstance(picture, Refusal) else picture.tobytes())
    send({"taken": [bool(picture) for picture in pictures]}, b"".join(pictures))


def _picture(opened: _Opened, name: str, frame: int, options: ImageOptions) -> Picture:
    return prepared_frame(opened[name], frame, options)


def _answer_volume(words: dict[str, Any], opened: _Opened, options: ImageOptions, send: Send) -> None:
    shape, affine = tuple(words["shape"]), np.array(words["affine"])
    stack = Stack(np.arange(shape[0]), affine, shape, words["tilt"])

    def prepared() -> Picture:
        volume = assemble(stack, decoded_slices((opened[name], frame) for name, frame in words["slices"]))
        opened.report()
        return preprocess_volume(volume, options)

    picture = attempted(prepared)
    if isinstance(picture, Refusal):
        send_refusal(send, picture)
    else:
        send({"taken": [True]}, picture.tobytes())


class _Opened(dict[str, Dataset]):
    """The object that was read last: the frames of one follow one another."""

    def __init__(self, objects: ObjectStore, report: Callable[[], None]) -> None:
        super().__init__()
        self._objects, self.report = objects, report

    def __missing__(self, name: str) -> Dataset:
        if self:
            self.report()  # the next object has the whole time again
        self.clear()
        try:
            self[name] = self._objects.read(name)
        except MetaDxError as fault:  # nothing is wrong with the picture, but with the home
            raise RefusedError(RejectionCode.UNREADABLE_FILE, fault.code) from fault
        return self[name]


if __name__ == "__main__":
    main()
