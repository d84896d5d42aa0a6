"""A folder that is taken in for one question: what lies elsewhere in a kept home plays no part."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from meta_dx.cohort.images import ImageOptions
from meta_dx.steps.external import taken_folder
from tests.dicom.builders import write_instance

BUNDLE: Any = SimpleNamespace(image_options=ImageOptions(size=16))


def studies(folder: Path, numbers: range) -> None:
    rng = np.random.default_rng(numbers.start)
    for number in numbers:
        pixels = rng.integers(0, 4000, (40, 40), dtype=np.uint16)
        write_instance(folder, patient=f"P{number}", study=f"1.2.{number + 1}", pixels=pixels)


def found(folder: Path, home: Path) -> set[str]:
    with taken_folder(folder, BUNDLE, home) as taken:
        original = taken.originals("study")
        assert set(taken.studies["study"]) == set(taken.store.index["study"])
        assert set(taken.groups) == set(taken.store.index["patient"])
        return {original[study] for study in taken.store.index["study"]}


def test_a_kept_home_answers_for_the_named_folder_only(tmp_path: Path) -> None:
    studies(tmp_path / "a", range(0, 3))
    studies(tmp_path / "b", range(2, 6))  # study 3 lies in both
    home = tmp_path / "home"
    assert found(tmp_path / "a", home) == {"1.2.1", "1.2.2", "1.2.3"}
    assert found(tmp_path / "b", home) == {"1.2.3", "1.2.4", "1.2.5", "1.2.6"}
    assert found(tmp_path / "a", home) == {"1.2.1", "1.2.2", "1.2.3"}
