"""The cursor and the books of a fetch, over an archive in memory that does what a test tells it to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from meta_dx.cohort import fetch as module
from meta_dx.cohort.fetch import FetchSummary, alone_in, clear_landed, failed_instances, fetch, landing_of
from meta_dx.cohort.ingest import ingest_folder, mended_files
from meta_dx.dicom.pacs.address import parse_address
from meta_dx.dicom.pacs.archive import (
    FetchFailure,
    Land,
    ListedInstance,
    ListedStudy,
    Listing,
    Outcome,
)
from meta_dx.dicom.pacs.landing import Landing
from meta_dx.dicom.pacs.options import PacsOptions
from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from meta_dx.records.vault import Vault
from tests.dicom.builders import uid_of, write_study

WHERE = "dimse://FAKE@nowhere:104"
QUIET = PacsOptions(recheck_days=0)


@dataclass
class Memory:
    """Files by (study, instance); ``marks`` are what it says of them."""

    files: dict[tuple[str, str], Path] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)
    fails: dict[str, FetchFailure] = field(default_factory=dict)
    swapped: dict[str, str] = field(default_factory=dict)
    unlistable: set[str] = field(default_factory=set)
    short: str = ""
    counts: bool = True
    looked: list[str] = field(default_factory=list)
    retrieved: list[str] = field(default_factory=list)
    dies_after: int | None = None
    landing: Landing | None = None

    def add(self, folder: Path, study: str, images: int = 3) -> None:
        for number, path in enumerate(write_study(folder / study, images=images, study=study, patient=study)):
            self.files[uid_of(study), uid_of(f"{study} image {number}")] = path

    def studies(self) -> tuple[list[ListedStudy], int]:
        found = {}
        for study, _ in self.files:
            number = sum(one == study for one, _ in self.files)
            found[study] = ListedStudy(study, "", f"{number}" if self.counts else "", number)
        return list(found.values()), 0

    def instances(self, study: ListedStudy) -> Listing:
        self.looked.append(study.uid)
        if study.uid in self.unlistable:
            raise MetaDxError("pacs_unreachable", "It cannot be listed.")
        mine = [uid for one, uid in self.files if one == study.uid]
        listed = [uid for uid in mine if uid != self.short]
        return Listing(
            tuple(ListedInstance(study.uid, "1.2", uid, "", self.marks.get(uid, "")) for uid in listed),
            missing=len(mine) - len(listed),
        )

    def retrieve(self, wanted: Sequence[ListedInstance], land: Land) -> Iterator[Outcome]:
        for instance in wanted:
            if self.dies_after is not None and len(self.retrieved) >= self.dies_after:
                raise KeyboardInterrupt
            self.retrieved.append(instance.uid)
            if instance.uid in self.fails:
                yield instance, self.fails[instance.uid]
                continue
            assert self.landing is not None
            file = self.landing.begin()
            file.write(self.files[instance.study, self.swapped.get(instance.uid, instance.uid)].read_bytes())
            land(instance, file)
            yield instance, None

    def close(self) -> None:
        """Nothing to end."""


@pytest.fixture
def archive(home: Home, source: Path, monkeypatch: pytest.MonkeyPatch) -> Memory:
    memory = Memory()
    memory.add(source, "A")
    memory.add(source, "B", images=2)

    def opened(address: object, options: object, landing: Landing) -> Memory:
        memory.landing = landing
        memory.looked.clear()
        memory.retrieved.clear()
        return memory

    monkeypatch.setattr(module, "_opened", opened)
    return memory


def folder_of(home: Home) -> Path:
    return landing_of(home, parse_address(WHERE)).folder


def take_in(home: Home) -> None:
    ingest_folder(home, folder_of(home))
    clear_landed(home, folder_of(home))


def test_found_is_fetched_plus_already_here_plus_failed(home, archive) -> None:
    archive.fails = {uid_of("A image 1"): FetchFailure.GONE, uid_of("B image 0"): FetchFailure.REFUSED}
    assert fetch(home, WHERE) == FetchSummary(found=5, fetched=3, failed={"gone": 1, "refused": 1}, studies=2)
    archive.fails = {uid_of("B image 0"): FetchFailure.REFUSED}
    again = FetchSummary(found=5, fetched=1, already_here=3, failed={"refused": 1}, studies=2)
    assert fetch(home, WHERE) == again
    assert [one.instance for one in failed_instances(home, WHERE)] == [uid_of("B image 0")]
    with pytest.raises(RuntimeError):
        replace(again, found=6)


def test_landed_files_carry_no_name_of_the_archive_and_are_removed_when_a_batch_has_them(
    home, archive
) -> None:
    fetch(home, WHERE)
    names = [file.name for file in folder_of(home).iterdir()]
    assert len(names) == 5 and all(re.fullmatch(r"[0-9a-f]{32}\.dcm", name) for name in names)
    assert clear_landed(home, folder_of(home)) == 0, "nothing has read them yet"
    ingest_folder(home, folder_of(home))
    assert clear_landed(home, folder_of(home)) == 5
    assert fetch(home, WHERE).already_here == 5 and archive.retrieved == []


def test_a_settled_study_is_looked_into_when_its_count_changes_or_the_archive_gives_none(
    home, archive, source
) -> None:
    fetch(home, WHERE, options=QUIET)
    fetch(home, WHERE, options=QUIET)
    assert archive.looked == []
    archive.add(source, "B", images=3)
    assert fetch(home, WHERE, options=QUIET).fetched == 1
    assert archive.looked == [uid_of("B")]
    fetch(home, WHERE, options=PacsOptions(recheck_days=1))
    assert sorted(archive.looked) == sorted([uid_of("A"), uid_of("B")])
    archive.counts = False
    fetch(home, WHERE, options=QUIET)
    fetch(home, WHERE, options=QUIET)
    assert len(archive.looked) == 2


def test_another_filter_looks_for_itself_and_fetches_nothing_twice(home, archive) -> None:
    fetch(home, WHERE, options=QUIET)
    summary = fetch(home, f"{WHERE}?description=x", options=QUIET)
    assert summary.already_here == 5 and len(archive.looked) == 2 and archive.retrieved == []


def test_what_the_archive_describes_otherwise_now_is_fetched_again(home, archive) -> None:
    fetch(home, WHERE)
    archive.marks[uid_of("A image 2")] = "another"
    summary = fetch(home, WHERE)
    assert (summary.fetched, summary.changed, archive.retrieved) == (1, 1, [uid_of("A image 2")])
    assert fetch(home, WHERE).fetched == 0


@pytest.mark.parametrize("killed", [True, False])
def test_a_run_that_is_stopped_goes_on_with_what_had_not_landed(home, archive, monkeypatch, killed) -> None:
    archive.dies_after = 2
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        if killed:  # without a word to the cursor
            patched.setattr(module._Run, "_enter", lambda _: None)
        fetch(home, WHERE)
    archive.dies_after = None
    first = sorted({uid_of("A"), uid_of("B")})[0]
    assert fetch(home, WHERE).already_here == 2
    assert len(archive.retrieved) == 3 and archive.looked[0] == first


def test_an_instance_that_is_another_one_is_told_and_fetched_again(home, archive, caplog) -> None:
    wrong = uid_of("A image 0")
    archive.swapped = {wrong: uid_of("A image 1")}
    fetch(home, WHERE, options=QUIET)
    take_in(home)
    assert "another_sent" in caplog.text
    assert [(one.instance, one.state) for one in failed_instances(home, WHERE)] == [(wrong, "another_sent")]
    archive.swapped = {}
    assert fetch(home, WHERE, options=QUIET).fetched == 1 and archive.retrieved == [wrong]
    assert failed_instances(home, WHERE) == []


def test_an_instance_that_ends_early_without_a_word_is_told_and_fetched_again(home, archive, caplog) -> None:
    place = (uid_of("A"), cut := uid_of("A image 0"))
    whole = archive.files[place].read_bytes()
    archive.files[place].write_bytes(whole[:-100])
    fetch(home, WHERE, options=QUIET)
    take_in(home)
    assert "cut_off" in caplog.text and cut not in caplog.text
    assert [(one.instance, one.state) for one in failed_instances(home, WHERE)] == [(cut, "cut_off")]
    archive.files[place].write_bytes(whole)
    assert fetch(home, WHERE, options=QUIET).fetched == 1 and archive.retrieved == [cut]
    assert failed_instances(home, WHERE) == []


def test_what_is_wrong_with_a_landed_file_is_entered_before_the_file_is_removed(
    home, archive, monkeypatch
) -> None:
    wrong = uid_of("A image 0")
    archive.swapped = {wrong: uid_of("A image 1")}
    fetch(home, WHERE, options=QUIET)
    ingest_folder(home, folder_of(home))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "unlink", _killed)
        clear_landed(home, folder_of(home))
    assert [one.instance for one in failed_instances(home, WHERE)] == [wrong]


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_study_that_cannot_be_listed_does_not_end_the_night_and_many_do(home, archive, source) -> None:
    archive.unlistable = {uid_of("A")}
    assert fetch(home, WHERE) == FetchSummary(found=5, fetched=2, failed={"not_listed": 3}, studies=2)
    for name in "CDEF":
        archive.add(source, name, images=1)
    archive.unlistable = {study for study, _ in archive.files}
    with pytest.raises(MetaDxError):
        fetch(home, WHERE)


def test_studies_that_cannot_be_listed_among_others_do_not_end_the_night(home, archive, source) -> None:
    for name in "CDEFGHIJKLMN":
        archive.add(source, name, images=1)
    fetch(
        home, WHERE
    )  # everything is here: from now on nothing is retrieved that could tell that the archive lives
    in_order = sorted({study for study, _ in archive.files})
    archive.unlistable = set(in_order[::2])
    assert len(archive.unlistable) > 5
    summary = fetch(home, WHERE)
    assert summary.failed["not_listed"] + summary.already_here == len(archive.files)
    assert archive.looked == in_order


@pytest.mark.parametrize("filters", ["", "?modality=CR"])
def test_what_a_series_counts_and_does_not_list_is_looked_for_the_next_night(home, archive, filters) -> None:
    (archive.short,) = lost = {uid_of("B image 1")}
    assert fetch(home, WHERE + filters, options=QUIET) == FetchSummary(
        found=5, fetched=4, failed={"not_listed": 1}, studies=2
    )
    archive.short = ""
    assert fetch(home, WHERE + filters, options=QUIET) == FetchSummary(
        found=5, fetched=1, already_here=4, studies=2
    )
    assert archive.looked == [uid_of("B")]
    assert set(archive.retrieved) == lost


def test_one_run_at_a_time_speaks_to_a_server(home, archive) -> None:
    with alone_in(landing_of(home, parse_address(WHERE))), pytest.raises(MetaDxError) as caught:
        fetch(home, WHERE)
    assert caught.value.code == "fetch_running"


def test_the_cursor_is_as_private_as_the_vault(home, archive) -> None:
    fetch(home, WHERE)
    outside = [file for file in home.root.rglob("*") if file.is_file() and "private" not in file.parts]
    assert not [file for file in outside if uid_of("A").encode() in file.read_bytes()]
    for file in home.private.rglob("*"):
        assert file.stat().st_mode & 0o077 == 0 or file.name.endswith(".lock"), file


def test_what_is_here_is_looked_up_by_name_whatever_else_the_home_has_seen(
    home, archive, monkeypatch
) -> None:
    fetch(home, WHERE)
    ingest_folder(home, folder_of(home))
    monkeypatch.setattr(Vault, "known_files", lambda *_: pytest.fail("every file of the home was loaded"))
    assert clear_landed(home, folder_of(home)) == 5
    assert mended_files(home, "b0001") == frozenset()
