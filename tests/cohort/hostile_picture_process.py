"""A picture process that does what hostile objects make decoders do; the height of the picture says what.

Started in the place of ``meta_dx.cohort.picture_process``.
"""

from __future__ import annotations

import os
import time

from meta_dx.cohort import picture_process


def _swell() -> None:
    blocks = []
    while True:
        blocks.append(bytearray(1 << 24))


ACTS = {41: os.abort, 42: lambda: time.sleep(600), 43: _swell}
_real = picture_process.physical_pixels
_slow = picture_process.decoded_slices


def _act(dataset, frame=0):
    ACTS.get(int(dataset.Rows), lambda: None)()
    return _real(dataset, frame)


def _take_time(places):
    for one in _slow(places):
        ACTS.get(int(one.dataset.Rows), lambda: time.sleep(0.6))()
        yield one


picture_process.physical_pixels = _act
picture_process.decoded_slices = _take_time

if __name__ == "__main__":
    picture_process.main()
