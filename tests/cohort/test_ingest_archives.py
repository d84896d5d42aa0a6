"""Archives and DICOMDIR as sources: what is in them is counted file by file, and what is hostile is refused."""

from __future__ import annotations

import os
import random
import shutil
import stat
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from meta_dx.cohort import ingest, scans
from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.ingest import IngestOptions, ingest_folder, plan_batches
from meta_dx.cohort.objects import ObjectStore
from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from meta_dx.records.vault import Vault
from tests.cohort.test_ingest import counted, tree, twin
from tests.dicom.archive_builders import (
    KINDS,
    say_encrypted,
    write_archive,
    write_directory,
    write_named_alike,
)
from tests.dicom.builders import write_instance


@pytest.fixture
def pictures(tmp_path) -> list[bytes]:
    return [write_instance(tmp_path / "made", patient=f"P{n}").read_bytes() for n in range(4)]


def codes(home: Home, source: Path) -> dict[str, str]:
    """Say what became of each file, by its name under the source."""
    with_vault = Vault.open(home)
    records = with_vault.known_files().values()
    with_vault.close()
    return {r.path.removeprefix(f"{source}/"): r.code or r.outcome for r in records}


@pytest.mark.parametrize("kind", KINDS)
def test_every_member_of_an_archive_is_a_file_of_its_own(home, source, pictures, kind):
    path = write_archive(
        source / f"a.{kind}",
        {
            "inner": None,
            "inner/x.dcm": pictures[0],
            "y": pictures[1],
            "again": pictures[1],
            "note.txt": b"note",
        },
    )
    write_instance(source, name="b.dcm", patient="P9")
    assert counted(ingest_folder(home, source)) == (5, 3, 1, 1, {})
    assert codes(home, source) == {
        f"a.{kind}": "opened",
        f"a.{kind}!/inner/x.dcm": "accepted",
        f"a.{kind}!/y": "accepted",
        f"a.{kind}!/again": "duplicate",
        f"a.{kind}!/note.txt": "not_dicom",
        "b.dcm": "accepted",
    }
    summary = Catalog(home).summary("b0001")
    assert (summary["found"], summary["accepted"], summary["duplicates"], summary["not_dicom"]) == (
        5,
        3,
        1,
        1,
    )
    for name in Catalog(home).instances()["object"]:
        assert ObjectStore(home).read(name).pixel_array.shape == (16, 16)
    assert path.exists()


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_can_be_the_source_itself(home, source, pictures, kind):
    path = write_archive(source / f"a.{kind}", {"x": pictures[0], "y": pictures[1]})
    assert counted(ingest_folder(home, path)) == (2, 2, 0, 0, {})
    assert plan_batches(home, [path]) == []
    assert counted(ingest_folder(home, path)) == (2, 0, 2, 0, {})


def test_an_archive_that_has_not_changed_is_not_opened_again(home, source, pictures, monkeypatch):
    path = write_archive(source / "a.zip", {"x": pictures[0], "y": pictures[1]})
    ingest_folder(home, source)
    with monkeypatch.context() as patch:
        patch.setattr(scans, "contents_of", lambda *_: pytest.fail("the archive was opened again"))
        assert counted(ingest_folder(home, source)) == (2, 0, 2, 0, {})
    write_archive(path, {"y": pictures[1], "z": pictures[2], "cut": pictures[3][:-9]})
    assert counted(ingest_folder(home, source)) == (3, 1, 1, 0, {"truncated": 1})
    assert set(codes(home, source)) == {"a.zip", "a.zip!/y", "a.zip!/z", "a.zip!/cut"}


def test_an_archive_is_taken_member_by_member_whoever_reads_it(home, source, tmp_path):
    members = {
        f"m{n:03d}": write_instance(tmp_path / "made", patient=f"P{n}").read_bytes() if n % 3 else b"text"
        for n in range(100)
    }
    write_archive(source / "a.tar.gz", members)
    write_archive(source / "b.zip", members)
    other = twin(home, "other")
    ingest_folder(home, source, options=IngestOptions(workers=1))
    ingest_folder(other, source, options=IngestOptions(workers=3))
    assert tree(home.catalog) == tree(other.catalog) and tree(home.objects) == tree(other.objects)
    assert len(Catalog(home).instances()) == 66


@pytest.mark.parametrize("mode", [0, stat.S_IFREG | 0o644, stat.S_IFDIR | 0o775])
def test_an_entry_that_is_named_like_a_folder_and_has_content_is_a_file(home, source, pictures, mode):
    with zipfile.ZipFile(source / "a.zip", "w") as target:
        for name, content in {
            "folder/": b"",
            "folder/x": pictures[0],
            "y/": pictures[1],
            "z/": b"text",
        }.items():
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, mode << 16 if name != "folder/x" else 0
            target.writestr(info, content)
    assert counted(ingest_folder(home, source)) == (3, 2, 0, 1, {})
    assert codes(home, source) == {
        "a.zip": "opened",
        "a.zip!/folder/x": "accepted",
        "a.zip!/y/": "accepted",
        "a.zip!/z/": "not_dicom",
    }


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(
    "name", ["../x.dcm", "a/../../x", "/etc/x", "\\x", "..\\x", "C:\\x", "c:x", "a/.."], ids=repr
)
def test_a_member_whose_name_leads_out_is_refused_and_the_rest_is_taken(home, source, pictures, kind, name):
    write_archive(source / f"a.{kind}", {name: pictures[0], "good": pictures[1]})
    before = set(source.parent.rglob("*"))
    assert counted(ingest_folder(home, source)) == (2, 1, 0, 0, {"archive_path": 1})
    made = set(source.parent.rglob("*")) - before
    assert all(path.is_relative_to(home.root) for path in made)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.xz"])
def test_links_and_archives_in_an_archive_are_refused_and_the_rest_is_taken(home, source, pictures, kind):
    nested = write_archive(source.parent / "inner.tar.gz", {"x": pictures[0]}).read_bytes()
    write_archive(
        source / f"a.{kind}",
        {"link": "/etc/passwd", "inner.tar.gz": nested, "x.zip": pictures[2], "good": pictures[1]},
    )
    summary = ingest_folder(home, source)
    assert counted(summary) == (4, 2, 0, 0, {"archive_link": 1, "archive_nested": 1})


def test_an_encrypted_member_is_refused_and_the_rest_is_taken(home, source, pictures):
    path = write_archive(source / "a.zip", {"good": pictures[1], "secret": pictures[0]})
    say_encrypted(path, "secret")
    assert counted(ingest_folder(home, source)) == (2, 1, 0, 0, {"archive_encrypted": 1})


def test_two_members_of_one_name_are_two_files(home, source, pictures):
    source.mkdir(exist_ok=True)
    with zipfile.ZipFile(source / "a.zip", "w") as target, pytest.warns(UserWarning, match="Duplicate"):
        for picture in pictures[:3]:
            target.writestr("x", picture)
    assert counted(ingest_folder(home, source)) == (3, 3, 0, 0, {})
    assert {"a.zip!/x", "a.zip!/x (2)", "a.zip!/x (3)"} < set(codes(home, source))


@pytest.mark.parametrize("name", ["", "x"])
def test_thousands_of_members_of_one_name_are_counted_and_hold_nothing_up(home, source, pictures, name):
    write_instance(source, name="b.dcm")
    write_named_alike(source / "a.zip", name, 5000)
    begun = time.process_time()
    assert counted(ingest_folder(home, source)) == (5001, 1, 0, 5000, {})
    few = time.process_time() - begun
    write_named_alike(source / "a.zip", name, 20_000)
    begun = time.process_time()
    assert counted(ingest_folder(home, source)) == (20_001, 0, 1, 20_000, {})
    assert time.process_time() - begun < 10 * few


def test_what_was_an_archive_and_is_one_no_longer_is_counted_once(home, source, pictures):
    path = write_archive(source / "a.zip", {"x": pictures[0], "y": pictures[1]})
    assert counted(ingest_folder(home, source)) == (2, 2, 0, 0, {})
    path.write_bytes(pictures[2])
    assert counted(ingest_folder(home, source)) == (1, 1, 0, 0, {})
    assert codes(home, source) == {"a.zip": "accepted"}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_cut_archive_is_refused_and_what_can_be_read_is_taken(home, source, pictures, kind):
    noise = {f"n{n}": random.Random(n).randbytes(20_000) for n in range(8)}
    path = write_archive(source / f"a.{kind}", {"first": pictures[0], **noise, "last": pictures[1]})
    path.write_bytes(path.read_bytes()[:-60_000])
    write_instance(source, name="b.dcm", patient="P9")
    summary = ingest_folder(home, source)
    found = codes(home, source)
    assert summary.rejected["archive_damaged"] >= 1 and found[f"a.{kind}"] == "archive_damaged"
    assert found["b.dcm"] == "accepted"
    if kind in ("tar", "tar.gz"):  # a zip has its table of contents at the end, and the others large blocks
        assert found[f"a.{kind}!/first"] == "accepted"
    assert f"a.{kind}!/last" not in found
    assert summary.found == len(found)


def test_a_damaged_header_in_a_tar_is_not_taken_for_its_end(home, source, pictures):
    path = write_archive(
        source / "a.tar", {"first": pictures[0], "second": pictures[1], "third": pictures[2]}
    )
    data = bytearray(path.read_bytes())
    place = data.index(b"second")
    data[place : place + 6] = b"secund"  # its checksum no longer fits
    path.write_bytes(data)
    assert counted(ingest_folder(home, source)) == (2, 1, 0, 0, {"archive_damaged": 1})


def test_a_damaged_member_is_refused_and_the_rest_is_taken(home, source, pictures):
    path = write_archive(source / "a.zip", {"bad": pictures[0], "good": pictures[1]})
    data = bytearray(path.read_bytes())
    data[60:80] = bytes(20)
    path.write_bytes(data)
    assert counted(ingest_folder(home, source)) == (2, 1, 0, 0, {"archive_damaged": 1})


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_bombs_are_refused_and_what_stands_before_them_is_taken(home, source, pictures, kind):
    zeros = bytes(90 << 20)
    write_archive(source / f"a.{kind}", {"first": pictures[0], "bomb": zeros})
    write_instance(source, name="b.dcm", patient="P9")
    options = IngestOptions(max_archive_ratio=10)
    summary = ingest_folder(home, source, options=options)
    assert counted(summary) == (3, 2, 0, 0, {"archive_limit": 1})


def test_a_member_that_is_too_large_is_refused_alone(home, source, pictures):
    write_archive(source / "a.zip", {"large": bytes(100_000), "good": pictures[0]})
    options = IngestOptions(max_file_bytes=50_000)
    assert counted(ingest_folder(home, source, options=options)) == (2, 1, 0, 0, {"file_too_large": 1})


@pytest.mark.parametrize(("limit", "most"), [("max_archive_members", 2), ("max_archive_bytes", 3000)])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_beyond_a_limit_are_left_out_and_the_archive_is_refused(
    home, source, pictures, kind, limit, most
):
    write_archive(source / f"a.{kind}", {f"m{n}": picture for n, picture in enumerate(pictures)})
    assert 1000 < len(pictures[0]) < 1500
    summary = ingest_folder(home, source, options=IngestOptions(**{limit: most}))
    assert counted(summary) == (3, 2, 0, 0, {"archive_limit": 1})


def test_a_zip_that_lies_about_a_size_is_refused(home, source, pictures):
    path = write_archive(source / "a.zip", {"liar": bytes(5_000_000), "good": pictures[0]})
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        place = data.index(mark) + offset
        data[place : place + 4] = (5000).to_bytes(4, "little")
    path.write_bytes(data)
    assert counted(ingest_folder(home, source)) == (2, 1, 0, 0, {"archive_damaged": 1})


def test_what_is_only_named_like_an_archive_is_read_as_what_it_is(home, source, pictures):
    source.mkdir(exist_ok=True)
    (source / "picture.zip").write_bytes(pictures[0])
    (source / "text.tar").write_text("text")
    (source / "empty.tgz").touch()
    write_archive(source / "nothing.zip", {})
    write_archive(source / "folders.tar", {"folder": None})
    assert counted(ingest_folder(home, source)) == (5, 1, 0, 4, {})
    assert codes(home, source)["nothing.zip"] == codes(home, source)["folders.tar"] == "archive_empty"


def test_an_archive_that_harms_its_reader_is_refused(home, source, pictures, hostile):
    crash = write_instance(source.parent / "made", patient="ABORT").read_bytes()
    write_archive(source / "a.zip", {"m1": pictures[0], "m2": crash, "m3": pictures[1]})
    write_archive(source / "b.tar.gz", {"m1": crash, "m2": pictures[2], "m3": pictures[3]})
    assert counted(ingest_folder(home, source)) == (6, 4, 0, 0, {"worker_crashed": 2})


def test_names_in_an_archive_that_are_no_text_are_taken(home, source, pictures):
    write_archive(source / "a.tar", {os.fsdecode(b"\xff\xfe"): pictures[0], "é": pictures[1]})
    assert counted(ingest_folder(home, source)) == (2, 2, 0, 0, {})
    assert counted(ingest_folder(home, source)) == (2, 0, 2, 0, {})


@pytest.fixture
def medium(tmp_path) -> Path:
    for number in range(3):
        write_instance(tmp_path / "medium", name=f"IMAGES/IM{number}", patient=f"P{number}")
    return tmp_path / "medium"


def test_a_dicomdir_is_a_source_of_the_files_it_names(home, medium):
    write_instance(medium, name="IMAGES/NOTNAMED", patient="P7")
    write_instance(medium.parent, name="outside", patient="P8")
    (medium / "LINK").symlink_to(medium.parent / "outside")
    path = write_directory(
        medium / "DICOMDIR",
        [
            ["IMAGES", "IM0"],
            ["IMAGES", "IM1"],
            ["IMAGES", "IM1"],
            ["IMAGES", "GONE"],
            ["..", "outside"],
            ["LINK"],
            ["IMAGES"],
        ],
    )
    summary = ingest_folder(home, path)
    assert counted(summary) == (6, 2, 0, 0, {"reference_missing": 2, "reference_outside": 2})
    assert codes(home, medium)["DICOMDIR!/IMAGES/IM0"] == "accepted"
    assert plan_batches(home, [path]) == []
    shutil.copy(medium / "IMAGES" / "IM2", medium / "IMAGES" / "GONE")
    assert counted(ingest_folder(home, path)) == (
        6,
        1,
        2,
        0,
        {"reference_missing": 1, "reference_outside": 2},
    )


def test_names_on_a_medium_that_the_computer_shows_small_are_found(home, medium):
    (medium / "IMAGES" / "IM0").rename(medium / "IMAGES" / "im0")
    (medium / "IMAGES").rename(medium / "images")
    path = write_directory(medium / "DICOMDIR", [["IMAGES", "IM0"]])
    assert counted(ingest_folder(home, path)) == (1, 1, 0, 0, {})


def test_a_dicomdir_in_a_folder_is_no_picture_and_the_folder_is_read_as_ever(home, medium):
    write_directory(medium / "DICOMDIR", [["IMAGES", "IM0"]])
    assert counted(ingest_folder(home, medium)) == (4, 3, 0, 0, {"media_directory": 1})


def test_a_damaged_dicomdir_is_refused(home, medium):
    path = write_directory(medium / "DICOMDIR", [])
    with pytest.raises(MetaDxError):
        ingest_folder(home, path.rename(medium / "dicomdir.txt"))
    (medium / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 100)
    summary = ingest_folder(home, medium / "DICOMDIR")
    assert summary.found == 1 and sum(summary.rejected.values()) == 1


@pytest.mark.parametrize("step", ["put", "record_files", "write_batch"])
def test_an_archive_whose_ingest_died_ends_with_the_same_bytes(home, source, pictures, monkeypatch, step):
    write_archive(source / "a.tar.gz", {"x": pictures[0], "y": pictures[1], "cut": pictures[2][:-9]})
    ingest_folder(home, source)
    write_archive(source / "a.tar.gz", {"y": pictures[1], "z": pictures[3]})
    control = twin(home, "control")
    ingest_folder(control, source)
    place = {"write_batch": ingest, "record_files": Vault}.get(step, ObjectStore)

    def dies(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(place, step, dies)
        with pytest.raises(KeyboardInterrupt):
            ingest_folder(home, source)
    assert counted(ingest_folder(home, source)) == (2, 1, 1, 0, {})
    assert tree(home.catalog) == tree(control.catalog) and tree(home.objects) == tree(control.objects)
    assert codes(home, source) == codes(control, source)


@pytest.mark.parametrize("limits", [IngestOptions(), IngestOptions(max_archive_members=3)])
def test_quarantined_files_of_an_archive_at_fault_can_be_allowed(home, source, tmp_path, limits):
    screens = [
        write_instance(tmp_path / "made", patient=f"P{n}", ConversionType="WSD").read_bytes()
        for n in range(4)
    ]
    path = write_archive(source / "a.tar", {f"{n}.dcm": data for n, data in enumerate(screens)})
    at_fault = {"archive_limit": 1}
    if limits == IngestOptions():
        blocks = sum(2 + (len(data) - 1) // 512 for data in screens[:3])
        path.write_bytes(path.read_bytes()[: 512 * blocks + 700])  # within the last file
        at_fault = {"archive_damaged": 2}
    before = ingest_folder(home, source, options=limits).rejected
    assert before.pop("secondary_capture") >= 3 and before == at_fault
    allowed = replace(limits, allow=("secondary_capture",))
    summary = ingest_folder(home, source, options=allowed)
    assert summary.accepted >= 3 and summary.rejected == at_fault
    assert plan_batches(home, [source], allowed.allow) == []
