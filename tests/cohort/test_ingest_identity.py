"""Original identities stand in the vault and nowhere else, also when something fails."""

import errno
import shutil
import sqlite3
from pathlib import Path

import pytest
from pydicom import dcmread

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.ingest import (
    Batch,
    ingest_batch,
    ingest_folder,
    plan_batches,
)
from meta_dx.errors import MetaDxError
from meta_dx.records.vault import Vault
from tests.cohort.test_ingest import mixed, tree
from tests.dicom.builders import write_instance


def test_no_original_identity_is_in_any_store_but_the_vault(home, source):
    token = "QZTOKENQZ"  # noqa: S105
    folder = source / f"{token} folder"
    for number in range(3):
        write_instance(
            folder,
            name=f"{token}{number}.dcm",
            patient=f"{token}p{number}",
            PatientName=f"{token}^x",
            AccessionNumber=f"{token}a",
            StudyDescription=token,
            InstitutionName=token,
        )
    write_instance(folder, name=f"{token}r.dcm", patient=token, PixelData=None)
    shutil.copy(folder / f"{token}0.dcm", folder / f"{token}z.dcm")
    (folder / f"{token}.txt").write_text(token)
    uids = [str(dcmread(p).StudyInstanceUID) for p in folder.glob("*.dcm")]
    ingest_folder(home, source)
    public = {name: data for name, data in tree(home.root).items() if not name.startswith("private")}
    # Parquet is compressed: what its cells say is searched, too.
    catalog = Catalog(home)
    tables = [catalog.instances(), catalog.rejections(), catalog.studies(), catalog.series()]
    cells = " ".join(str(value) for table in tables for value in table.to_numpy().ravel())
    for planted in (token, *uids):
        assert planted not in cells
        assert not [name for name, data in public.items() if planted in name or planted.encode() in data]
    assert any(token.encode() in data for name, data in tree(home.private).items())


def test_no_error_names_a_patient(home, source, monkeypatch):
    token = "QZTOKENQZ"  # noqa: S105
    write_instance(source / token, name=f"{token}.dcm", patient=token)

    def full(self, data):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(MetaDxError) as fault:
        ingest_folder(home, source)
    assert token not in str(fault.value)


def test_the_vault_knows_the_plan(home, source):
    mixed(source)
    plan_batches(home, [source])
    assert [(b.id, b.source) for b in Vault.open(home).batches()] == [("b0001", str(source))]
    with pytest.raises(MetaDxError):
        ingest_batch(home, Batch("b0001", source / "gone"))
    assert sqlite3.connect(home.private / "identity.sqlite").execute(
        "SELECT count(*) FROM files"
    ).fetchone() == (0,)
