"""The fingerprint: right numbers, nobody named, versioned by content."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from meta_dx.cohort.examples import Examples
from meta_dx.cohort.fingerprint import read_fingerprint, write_fingerprint
from meta_dx.cohort.images import ImageStore
from meta_dx.cohort.preprocessing import ImageOptions
from meta_dx.home import Home
from tests.cohort.image_tables import HandMadeCatalog, photo


@pytest.fixture
def catalog(tmp_path: Path) -> HandMadeCatalog:
    catalog = HandMadeCatalog(Home.open(tmp_path / "home"))
    for n in range(6):
        values = {
            "sex": "F" if n % 3 else None,
            "age_years": 40.0 + n if n else np.nan,
            "rows": 64,
            "columns": 64,
        }
        catalog.add(photo(n), f"S{n}", modality="CT" if n < 4 else "MR", pixel_min=float(n), **values)
    return catalog


def test_the_numbers_are_those_of_the_cohort_and_name_nobody(catalog: HandMadeCatalog) -> None:
    store = ImageStore.build(catalog.home, catalog, ImageOptions(size=16))  # type: ignore[arg-type]
    table = catalog.instances()
    codes = np.array(["A", "A", "A", "A", "B", "B"])
    rare = Examples(table["study"].to_numpy(str), table["patient"].to_numpy(str), codes, (np.array([0]),) * 6)
    content = write_fingerprint(catalog.home, store, table, {"rare": rare})
    assert content["counts"] == {"instances": 6, "series": 1, "studies": 6, "patients": 6}
    assert content["instances"]["modality"] == {"CT": 4, "MR": 2}
    assert content["physical_units"]["CT"]["pixel_min"]["max"] == 3.0
    assert content["people"]["sex"] == {"F": 4, "unknown": 2}
    assert content["people"]["age_years"]["median"] == 43.0
    assert set(content["people"]["age_years"]) == {"p5", "p25", "median", "p75", "p95"}
    assert content["diseases"]["rare"]["patients_per_disease"]["median"] == 3.0
    assert content["pictures"]["mean"] == [pytest.approx(store.load().mean(), abs=1e-3)]
    levels = [content["pictures"]["grey_levels"][name] for name in ("min", "median", "max")]
    assert levels == np.percentile(store.load(), [0, 50, 100], method="inverted_cdf").tolist()
    text = json.dumps(content)
    assert not [
        name for name in (*table["study"], *table["patient"], *table["instance"]) if f'"{name}"' in text
    ]
    assert read_fingerprint(catalog.home) == content
    assert (catalog.home.root / "fingerprint" / f"{content['version']}.json").is_file()
    assert write_fingerprint(catalog.home, store, table, {"rare": rare})["version"] == content["version"]


def test_an_empty_cohort_has_a_fingerprint_too(tmp_path: Path) -> None:
    catalog = HandMadeCatalog(Home.open(tmp_path / "home"))
    assert read_fingerprint(catalog.home) is None
    store = ImageStore.build(catalog.home, catalog, ImageOptions(size=16))  # type: ignore[arg-type]
    assert write_fingerprint(catalog.home, store, catalog.instances(), {})["counts"]["patients"] == 0
