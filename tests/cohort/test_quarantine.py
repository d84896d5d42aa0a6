"""What ingest does with quarantined pictures when the cohort's mind changes."""

from pathlib import Path

import pytest

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.ingest import IngestOptions, ingest_folder, plan_batches
from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from tests.dicom.builders import write_instance

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    write_instance(folder, name="a.dcm", patient="A")
    write_instance(folder, name="b.dcm", patient="B", SOPClassUID=SECONDARY_CAPTURE)
    write_instance(folder, name="c.dcm", patient="C", Modality="US")
    (folder / "d.dcm").write_bytes((folder / "a.dcm").read_bytes()[:600])
    return folder


def test_what_was_quarantined_is_taken_when_it_is_allowed_and_nothing_else_is_read_again(tmp_path, source):
    home = Home.open(tmp_path / "home")
    first = ingest_folder(home, source)
    assert first.rejected == {"secondary_capture": 1, "truncated": 1, "ultrasound": 1} and first.accepted == 1
    before = {path: path.read_bytes() for path in source.iterdir()}
    allowing = IngestOptions(allow=("secondary_capture",))
    assert plan_batches(home, [source]) == []
    second = ingest_folder(home, source, options=allowing)
    assert (second.accepted, second.duplicates, second.rejected) == (1, 1, {"truncated": 1, "ultrasound": 1})
    assert Catalog(home).summary("b0002")["found"] == 1
    assert plan_batches(home, [source], allowing.allow) == []
    assert {path: path.read_bytes() for path in source.iterdir()} == before


def test_what_was_taken_stays_when_it_is_no_longer_allowed(tmp_path, source):
    home = Home.open(tmp_path / "home")
    ingest_folder(home, source, options=IngestOptions(allow=("secondary_capture", "ultrasound")))
    again = ingest_folder(home, source)
    assert (again.accepted, again.duplicates) == (0, 3)


def test_only_kinds_of_quarantine_can_be_allowed():
    with pytest.raises(MetaDxError, match="secondary_capture"):
        IngestOptions(allow=("truncated",))
