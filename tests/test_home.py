"""Everything is written beside its place and renamed into it; a home belongs to one cohort."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from meta_dx.errors import MetaDxError
from meta_dx.home import Home, fingerprint_of, new_folder, storage_faults, write_bytes, write_json


def test_a_home_belongs_to_the_first_cohort_that_named_itself(tmp_path: Path) -> None:
    Home.open(tmp_path)
    assert Home.open(tmp_path, "skin").cohort == "skin"
    assert Home.open(tmp_path).cohort == "skin"
    with pytest.raises(MetaDxError) as caught:
        Home.open(tmp_path, "chest")
    assert caught.value.code == "home_of_another_cohort"
    assert "skin" in str(caught.value)


def test_the_vault_folder_is_for_its_owner_only(tmp_path: Path) -> None:
    assert Home.open(tmp_path).private.stat().st_mode & 0o077 == 0


def test_a_failed_write_leaves_the_old_content_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        write_json(path, {"new": object()})
    with pytest.raises(TypeError):
        write_bytes(path, "text")  # type: ignore[arg-type]
    assert path.read_text() == '{\n  "old": 1\n}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "shard"
    with pytest.raises(RuntimeError), new_folder(place) as beside:
        (beside / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with new_folder(place) as beside:
        (beside / "whole").write_text("first")
    with new_folder(place) as beside:
        (beside / "whole").write_text("second")
    assert (place / "whole").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["shard"]


def test_what_a_killed_process_left_is_cleared_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    place = tmp_path / "shard"
    code = (
        "import os, sys, pathlib, meta_dx.home as h\n"
        "with h.new_folder(pathlib.Path(sys.argv[1])) as beside:\n"
        "    (beside / 'half').write_text('x')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(place)], check=False)
    assert len(list(tmp_path.iterdir())) == 1, "the killed process left its half"
    with new_folder(place) as outer:
        (outer / "whole").write_text("x")
        with new_folder(place) as inner:
            (inner / "other").write_text("y")
        assert (outer / "whole").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["shard"]


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, "disk_full"), (errno.EROFS, "read_only"), (errno.EACCES, "not_writable")],
)
def test_storage_faults_become_one_clear_sentence(tmp_path: Path, number: int, code: str) -> None:
    with pytest.raises(MetaDxError) as caught, storage_faults(tmp_path / "x"):
        raise OSError(number, "fault")
    assert caught.value.code == code
    assert str(tmp_path / "x") in str(caught.value)


def test_other_faults_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), storage_faults(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "gone")


def test_a_file_where_a_folder_is_needed_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(MetaDxError):
        Home.open(tmp_path / "file" / "home")


def test_fingerprints_ignore_the_order_of_keys_and_see_every_value() -> None:
    assert fingerprint_of({"a": 1, "b": [1.5, "x"]}) == fingerprint_of({"b": [1.5, "x"], "a": 1})
    assert fingerprint_of({"a": 1}) != fingerprint_of({"a": 2})
