import os
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest

from meta_dx.dicom.rejections import RejectionCode
from meta_dx.dicom.sources import checked_source, found_files
from meta_dx.errors import MetaDxError


def names(folder, **options):
    return [str(file.path.relative_to(folder)) for file in found_files(folder, **options)]


def test_every_regular_file_is_found_in_the_order_of_paths(tmp_path):
    for name in ("b/2", "b/1", "a", ".hidden", "c/d/e.dcm", "ünï", "b.dcm"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "empty").mkdir()
    found = found_files(tmp_path)
    assert [str(f.path.relative_to(tmp_path)) for f in found] == sorted(
        ("b/2", "b/1", "a", ".hidden", "c/d/e.dcm", "ünï", "b.dcm"), key=os.fsencode
    )
    about = (tmp_path / "b/1").stat()
    one = next(file for file in found if file.path == tmp_path / "b/1")
    assert (one.size, one.mtime_ns, one.refused) == (3, about.st_mtime_ns, None)


@pytest.fixture
def nest(tmp_path):
    """Make that many folders, one in the other, by steps since the whole path may be too long."""

    def make(depth):
        descriptor = os.open(tmp_path, os.O_RDONLY)
        for _ in range(depth):
            os.mkdir("d", dir_fd=descriptor)
            inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        os.close(descriptor)
        return tmp_path.joinpath(*["d"] * depth)

    yield make
    subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)  # too deep for the rmtree of pytest


def test_folders_may_be_nested_deeper_than_calls_in_python(tmp_path, nest):
    (tmp_path / "z").write_text("x")
    (nest(sys.getrecursionlimit() + 100) / "a").write_text("x")
    assert [file.path.name for file in found_files(tmp_path)] == ["a", "z"]


def test_folders_that_are_nested_deeper_than_the_system_allows_are_said(tmp_path, nest):
    nest(2100)
    with pytest.raises(MetaDxError, match="exceeds what the system allows") as fault:
        found_files(tmp_path)
    assert fault.value.code == "source_unreadable"


def test_names_that_are_no_text_are_found(tmp_path):
    (tmp_path / os.fsdecode(b"\xff\xfe.dcm")).write_bytes(b"x")
    assert len(found_files(tmp_path)) == 1


def test_links_are_not_followed_out_of_the_source(tmp_path):
    outside, source = tmp_path / "outside", tmp_path / "source"
    outside.mkdir()
    (source / "inside").mkdir(parents=True)
    (outside / "secret").write_text("x")
    (source / "inside" / "real").write_text("y")
    (source / "to_file").symlink_to(outside / "secret")
    (source / "to_folder").symlink_to(outside)
    (source / "loop").symlink_to(source)
    (source / "near").symlink_to(source / "inside" / "real")
    (source / "broken").symlink_to(source / "nothing")
    found = {str(f.path.relative_to(source)): f.refused for f in found_files(source)}
    assert found == {
        "inside/real": None,
        "near": None,
        "to_file": RejectionCode.LINK_OUTSIDE,
        "broken": RejectionCode.UNREADABLE_FILE,
    }


def test_a_folder_whose_name_begins_alike_is_outside(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source2").mkdir()
    (tmp_path / "source2" / "x").write_text("x")
    (tmp_path / "source" / "x").symlink_to(tmp_path / "source2" / "x")
    assert [file.refused for file in found_files(tmp_path / "source")] == [RejectionCode.LINK_OUTSIDE]


def test_pipes_and_sockets_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        assert found_files(tmp_path) == []


def test_the_home_inside_the_source_is_left_out(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "object").write_text("x")
    (tmp_path / "file").write_text("x")
    assert names(tmp_path, without=tmp_path / "home") == ["file"]


def test_a_missing_folder_and_a_file_are_refused_with_one_sentence(tmp_path):
    with pytest.raises(MetaDxError, match="does not exist") as missing:
        checked_source(tmp_path / "nothing")
    assert missing.value.code == "source_missing"
    (tmp_path / "file").write_text("x")
    with pytest.raises(MetaDxError, match="not a folder"):
        checked_source(tmp_path / "file")


def test_one_folder_has_one_name(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert checked_source(tmp_path / "link") == checked_source(tmp_path / "real" / ".." / "real")


def test_a_folder_that_cannot_be_listed_is_said(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    real = os.scandir

    def scandir(folder):
        if str(folder).endswith("closed"):
            raise PermissionError(13, "denied")
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(MetaDxError) as fault:
        found_files(tmp_path)
    assert fault.value.code == "source_unreadable" and "closed" not in str(fault.value)


def test_what_vanishes_while_it_is_listed_is_left_out(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    for name in ("kept", "sent.tmp", "folder/inner"):
        (tmp_path / name).write_text("x")
    for name in ("link", "linked.tmp"):
        (tmp_path / name).symlink_to(tmp_path / "kept")
    real = os.scandir

    @contextmanager
    def scandir(folder):
        with real(folder) as entries:
            here = list(entries)
        if folder == str(tmp_path):
            for name in ("sent.tmp", "linked.tmp"):
                (tmp_path / name).unlink()
            shutil.rmtree(tmp_path / "folder")
        yield here

    monkeypatch.setattr(os, "scandir", scandir)
    assert names(tmp_path) == ["kept", "link"]


def test_a_source_that_vanishes_is_said(tmp_path):
    with pytest.raises(MetaDxError) as fault:
        found_files(tmp_path / "gone.zip")
    assert fault.value.code == "source_missing"


def test_a_folder_whose_files_cannot_be_looked_at_is_said_without_their_names(tmp_path, monkeypatch):
    class Closed:
        path = name = "DOE^JOHN"

        def stat(self, *, follow_symlinks):
            raise PermissionError(13, "denied", self.path)

    @contextmanager
    def scandir(_):
        yield [Closed()]

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(MetaDxError) as fault:
        found_files(tmp_path)
    assert fault.value.code == "source_unreadable" and "DOE" not in str(fault.value)
