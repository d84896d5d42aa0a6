from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from meta_dx.records.vault import KINDS, FileRecord, Vault

NAMES = st.text() | st.binary(max_size=12).map(os.fsdecode)


@pytest.fixture
def vault(home: Home) -> Vault:
    return Vault.open(home)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def file(path: str, **more: object) -> FileRecord:
    return FileRecord(
        **{"path": path, "size": 1, "mtime_ns": 2, "batch": "b0001", "outcome": "accepted", **more}
    )


# The file and its key


def test_only_the_owner_can_read_the_vault_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        home = Home.open(tmp_path / "home")
        (home.root / "private").mkdir(mode=0o777)
        vault = Vault.open(home)
        vault.remember("patient", {"P1": "Doe"})
        files = list(home.private.iterdir())
    finally:
        os.umask(old)
    assert mode(home.private) == 0o700
    assert {path.name for path in files} >= {"identity.sqlite", "identity.sqlite-wal"}
    assert {mode(path) for path in files} == {0o600}


def test_a_vault_that_others_could_read_is_closed_to_them(home: Home) -> None:
    Vault.open(home).close()
    path = home.private / "identity.sqlite"
    path.chmod(0o644)
    Vault.open(home)
    assert mode(path) == 0o600


def test_the_key_is_made_once_and_differs_between_homes(home: Home, vault: Vault, tmp_path: Path) -> None:
    assert isinstance(vault.key, bytes)
    assert len(vault.key) == 32
    assert Vault.open(home).key == vault.key
    assert Vault.open(Home.open(tmp_path / "another")).key != vault.key


def test_a_new_vault_that_is_opened_many_times_at_once_has_one_key(tmp_path: Path) -> None:
    for attempt in range(10):
        home, start, keys = Home.open(tmp_path / str(attempt)), threading.Barrier(4), []

        def run(home: Home = home, start: threading.Barrier = start, keys: list[bytes] = keys) -> None:
            start.wait()
            keys.append(Vault.open(home).key)

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert keys == [Vault.open(home).key] * 4


def test_a_vault_of_a_newer_version_is_refused(home: Home, vault: Vault) -> None:
    with sqlite3.connect(home.private / "identity.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(MetaDxError, match="newer version of meta-dx") as fault:
        Vault.open(home)
    assert fault.value.code == "vault_newer"


def test_a_file_that_is_no_vault_is_named_and_kept(home: Home) -> None:
    path = home.private / "identity.sqlite"
    path.write_bytes(b"something else\n" * 1000)
    with pytest.raises(MetaDxError, match=r"identity\.sqlite") as fault:
        Vault.open(home)
    assert fault.value.code == "database_damaged"
    assert path.read_bytes() == b"something else\n" * 1000


# Identities


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(KINDS), pairs=st.dictionaries(st.text("PA0123"), NAMES, max_size=8))
def test_every_original_is_found_again_and_only_under_its_kind(vault: Vault, kind: str, pairs: dict) -> None:
    vault.remember(kind, pairs)
    assert vault.originals(kind, [*pairs, *pairs, "unknown"]) == pairs
    assert pairs.items() <= vault.all(kind).items()
    other = KINDS[KINDS.index(kind) - 1]
    fresh = {name: f"{original}?" for name, original in pairs.items()}
    vault.remember(other, fresh)
    assert vault.originals(kind, pairs) == pairs


def test_many_originals_are_found_in_one_call(vault: Vault) -> None:
    pairs = {f"2.25.{number}": f"1.2.3.{number}" for number in range(2345)}
    vault.remember("instance", pairs)
    assert vault.originals("instance", iter(pairs)) == pairs == vault.all("instance")


def test_remembering_again_takes_the_last_word(home: Home, vault: Vault) -> None:
    vault.remember("patient", {"P1": "old", "P2": "kept"})
    vault.remember("patient", {"P1": "new"})
    assert Vault.open(home).all("patient") == {"P1": "new", "P2": "kept"}


def test_an_unknown_kind_is_a_fault_of_the_caller(vault: Vault) -> None:
    for call in (
        vault.all,
        lambda kind: vault.originals(kind, ["x"]),
        lambda kind: vault.remember(kind, {"x": "y"}),
    ):
        with pytest.raises(ValueError, match="no kind 'name'"):
            call("name")


# Files and batches


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(paths=st.lists(NAMES, unique=True, max_size=8))
def test_every_file_is_known_by_its_path(vault: Vault, paths: list[str]) -> None:
    files = {path: file(path, size=number, mtime_ns=2**62) for number, path in enumerate(paths)}
    vault.record_files(files.values())
    assert files.items() <= vault.known_files().items()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    paths=st.lists(st.text("ab/0.!\udcff", max_size=6), unique=True, max_size=12),
    folder=st.sampled_from("ab"),
)
def test_files_are_found_by_path_and_by_folder(vault: Vault, paths: list[str], folder: str) -> None:
    vault.forget_files(vault.known_files())
    vault.record_files(file(path) for path in paths)
    assert vault.files([*paths, "missing"]) == {path: file(path) for path in paths}
    assert vault.files_within(f"{folder}/").keys() == {p for p in paths if p.startswith(f"{folder}/")}


def test_files_in_an_archive_whose_name_is_no_text_are_found(vault: Vault) -> None:
    names = ["/a.zip!/x", "/a.zip!/\udcff", "/\udcff.zip!/y", "/a.zip", "/a.zip0"]
    vault.record_files(file(name) for name in names)
    assert list(vault.files_within("/a.zip!/")) == names[:2]
    assert list(vault.files_within("/\udcff.zip!/")) == names[2:3]


def test_a_file_that_is_read_again_has_its_new_outcome(vault: Vault) -> None:
    vault.record_files([file("/a"), file("/b")])
    again = file("/a", size=9, batch="b0002", outcome="rejected", code="truncated", surrogate="F1")
    vault.record_files([again])
    assert vault.known_files() == {"/a": again, "/b": file("/b")}
    assert vault.known_files("b0002") == {"/a": again}


def test_batches_are_planned_once(vault: Vault) -> None:
    vault.add_batch("b0002", "/second")
    vault.add_batch("b0001", os.fsdecode(b"/fir\xff\xfest"))
    planned = vault.batches()
    vault.add_batch("b0002", "/second")
    assert vault.batches() == planned
    assert [(batch.id, batch.source) for batch in planned] == [
        ("b0001", "/fir\udcff\udcfest"),
        ("b0002", "/second"),
    ]
    with pytest.raises(MetaDxError) as fault:
        vault.add_batch("b0001", "/of another patient")
    assert fault.value.code == "batch_of_another_source"
    assert "patient" not in str(fault.value)
    assert vault.batches() == planned


def test_planners_at_once_take_different_batch_ids(home: Home) -> None:
    Vault.open(home).close()

    def plan(name: int) -> None:
        vault = Vault.open(home)
        for number in range(5):
            with vault.transaction():
                vault.add_batch(f"b{len(vault.batches()) + 1:04d}", f"{name}/{number}")

    threads = [threading.Thread(target=plan, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [batch.id for batch in Vault.open(home).batches()] == [f"b{number:04d}" for number in range(1, 16)]


# Transactions


def write_everything(vault: Vault) -> None:
    vault.remember("patient", {"P1": "Doe"})
    vault.add_batch("b0001", "/source")
    vault.record_files([file("/a")])


def everything(vault: Vault) -> tuple[int, int, int]:
    return len(vault.all("patient")), len(vault.batches()), len(vault.known_files())


def test_a_batch_is_kept_whole_or_not_at_all(home: Home, vault: Vault) -> None:
    with pytest.raises(KeyError), vault.transaction():
        write_everything(vault)
        assert everything(vault) == (1, 1, 1)
        raise KeyError
    assert everything(vault) == (0, 0, 0)
    reader = Vault.open(home)
    with vault.transaction():
        write_everything(vault)
        assert everything(reader) == (0, 0, 0)
    assert everything(reader) == (1, 1, 1)


def test_a_block_inside_a_block_that_raises_undoes_only_itself(home: Home, vault: Vault) -> None:
    with vault.transaction():
        vault.remember("patient", {"P1": "Doe"})
        with pytest.raises(KeyError), vault.transaction():
            vault.remember("patient", {"P2": "Roe"})
            raise KeyError
        with vault.transaction():
            vault.remember("patient", {"P3": "Poe"})
    assert Vault.open(home).all("patient") == {"P1": "Doe", "P3": "Poe"}


def test_threads_share_a_vault_and_their_blocks_do_not_mix(vault: Vault) -> None:
    start = threading.Barrier(3)

    def write(name: int) -> None:
        start.wait()
        for number in range(5):
            try:
                with vault.transaction():
                    vault.remember("patient", {f"P{name}.{number}.{n}": "x" for n in range(5)})
                    if number % 2:
                        raise KeyError
            except KeyError:
                pass

    threads = [threading.Thread(target=write, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    kept = {f"P{name}.{number}.{n}" for name in range(3) for number in (0, 2, 4) for n in range(5)}
    assert set(vault.all("patient")) == kept


def test_a_full_disk_is_one_clear_sentence_and_loses_nothing(home: Home, vault: Vault) -> None:
    write_everything(vault)
    vault._connection.execute("PRAGMA max_page_count = 1")  # never below what the file already has
    with pytest.raises(MetaDxError, match="the disk is full") as fault, vault.transaction():
        vault.remember("patient", {"P2": "Roe"})
        vault.remember("patient", {f"P{number}": "x" * 100 for number in range(10_000)})
    assert fault.value.code == "disk_full"
    vault._connection.execute("PRAGMA max_page_count = 1000000")
    assert vault.all("patient") == {"P1": "Doe"}
    vault.remember("patient", {"P2": "Roe"})
    assert everything(Vault.open(home)) == (2, 1, 1)


def test_a_vault_carried_into_another_process_is_refused(vault: Vault, monkeypatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="open it there"):
        vault.all("patient")
    with pytest.raises(RuntimeError, match="open it there"):
        vault.remember("patient", {"P1": "Doe"})


@pytest.mark.system
@pytest.mark.parametrize("committed", [False, True], ids=["before the commit", "after the commit"])
def test_a_process_killed_while_it_writes_leaves_all_or_nothing_of_its_batch(
    home: Home, committed: bool
) -> None:
    write_everything(Vault.open(home))
    script = (
        "import sys, time\n"
        "from meta_dx.home import Home\n"
        "from meta_dx.records.vault import FileRecord, Vault\n"
        "def stop():\n"
        "    print('written', flush=True)\n"
        "    time.sleep(60)\n"
        "vault = Vault.open(Home.open(sys.argv[1]))\n"
        "with vault.transaction():\n"
        "    vault.add_batch('b0002', '/source')\n"
        "    for n in range(50):\n"
        "        vault.remember('patient', {f'P{n}.{m}': 'x' * 100 for m in range(400)})\n"
        "        vault.record_files([FileRecord(f'/{n}', 1, 2, 'b0002', 'accepted')])\n"
        "    sys.argv[2] == 'True' or stop()\n"
        "stop()\n"
    )
    command = [sys.executable, "-c", script, str(home.root), str(committed)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    vault = Vault.open(home)
    assert everything(vault) == ((20_001, 2, 51) if committed else (1, 1, 1))
    vault.remember("patient", {"P after": "x"})
