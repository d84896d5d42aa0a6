import errno
import hashlib
from pathlib import Path

import pytest

from meta_dx.cohort.objects import ObjectStore
from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from tests.dicom.builders import picture, write_instance


@pytest.fixture
def home(tmp_path) -> Home:
    return Home.open(tmp_path / "home")


def test_an_object_comes_back_under_the_hash_of_its_bytes(home, tmp_path):
    data = write_instance(tmp_path, pixels=picture(1)).read_bytes()
    store = ObjectStore(home)
    name = store.put(data)
    assert name == hashlib.sha256(data).hexdigest()
    assert store.path(name) == home.objects / name[:2] / f"{name}.dcm"
    assert store.path(name).read_bytes() == data
    assert (store.read(name).pixel_array == picture(1)).all()


def test_the_same_content_is_stored_once(home):
    store = ObjectStore(home)
    assert store.put(b"x") == store.put(b"x")
    store.put(b"y")
    assert len(list(home.objects.rglob("*.dcm"))) == 2


def test_a_file_that_a_power_cut_spoilt_is_written_again(home):
    store = ObjectStore(home)
    name = store.put(b"content")
    store.path(name).write_bytes(bytes(7))
    assert store.put(b"content") == name
    assert store.path(name).read_bytes() == b"content"


def test_damage_and_loss_are_said(home):
    store = ObjectStore(home)
    name = store.put(b"content")
    store.path(name).write_bytes(b"CONTENT")
    with pytest.raises(MetaDxError) as damaged:
        store.read(name)
    store.path(name).unlink()
    with pytest.raises(MetaDxError) as missing:
        store.read(name)
    assert (damaged.value.code, missing.value.code) == ("object_damaged", "object_missing")


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "ab", "A" * 64, "g" * 64])
def test_no_path_is_built_from_anything_but_a_hash(home, name):
    with pytest.raises(ValueError, match="SHA-256"):
        ObjectStore(home).path(name)


def test_a_full_disk_leaves_nothing_under_the_name(home, monkeypatch):
    def full(self, data):
        self.open("wb").write(data[:3])
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(Path, "write_bytes", full)
    store = ObjectStore(home)
    with pytest.raises(MetaDxError) as fault:
        store.put(b"content")
    assert fault.value.code == "disk_full"
    assert [path for path in home.objects.rglob("*") if path.is_file()] == []


def test_what_a_dead_process_left_is_cleared(home):
    store = ObjectStore(home)
    name = store.put(b"content")
    (home.objects / "unfinished").mkdir(exist_ok=True)
    (home.objects / "unfinished" / "rest").write_bytes(b"half")
    store.clear_unfinished()
    store.flush()
    assert [path for path in home.objects.rglob("*") if path.is_file()] == [store.path(name)]
    store.put(b"more")
