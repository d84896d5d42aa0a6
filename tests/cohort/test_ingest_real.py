"""Ingest of real files: nothing crashes, every file is accounted for, what is taken can be read again."""

import pytest

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.ingest import IngestOptions, ingest_folder
from meta_dx.cohort.objects import ObjectStore
from meta_dx.dicom.pixels import physical_pixels
from meta_dx.dicom.quarantine import QUARANTINED
from meta_dx.home import Home

pytestmark = pytest.mark.data


def test_every_file_of_a_corpus_of_many_vendors_is_accounted_for(real_data, tmp_path):
    corpus = real_data / "dicom-corpus"
    files = [path for path in corpus.rglob("*") if path.is_file()]
    home = Home.open(tmp_path / "home")
    quarantined = ingest_folder(Home.open(tmp_path / "strict"), corpus)
    assert {"secondary_capture", "ultrasound"} <= set(quarantined.rejected)
    summary = ingest_folder(home, corpus, options=IngestOptions(allow=tuple(QUARANTINED)))
    assert summary.found == quarantined.found > len(files)  # the members of archives count, not the archives
    kept_out = sum(quarantined.rejected.get(code, 0) for code in QUARANTINED)
    assert not set(QUARANTINED) & set(summary.rejected)
    assert summary.accepted > quarantined.accepted and kept_out >= 40
    assert summary.accepted >= 150
    assert summary.rejected.get("damaged_pixels", 0) <= 4
    instances = Catalog(home).instances()
    assert len(instances) == summary.accepted
    assert {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL_422"} <= set(
        instances["photometric"]
    )
    for row in instances.itertuples():
        pixels = physical_pixels(ObjectStore(home).read(row.object), row.frames - 1)
        assert pixels.shape[:2] == (row.rows, row.columns)
        assert row.pixel_min <= pixels.min() <= pixels.max() <= row.pixel_max
