import errno
import os
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meta_dx.cohort import ingest, known, ledger
from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.ingest import (
    IngestOptions,
    IngestSummary,
    ingest_batch,
    ingest_folder,
    plan_batches,
)
from meta_dx.cohort.objects import ObjectStore
from meta_dx.dicom.identity import Surrogates
from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from meta_dx.records.vault import Vault
from tests.dicom.builders import picture, uid_of, write_instance, write_study


def counted(summary: IngestSummary) -> tuple:
    return (
        summary.found,
        summary.accepted,
        summary.duplicates,
        summary.not_dicom,
        summary.rejected,
    )


def tree(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def twin(home: Home, name: str) -> Home:
    """Copy a home, so that two histories can be told with one key."""
    Vault.open(home).close()
    return Home.open(shutil.copytree(home.root, home.root.parent / name))


def mixed(source: Path) -> None:
    write_study(source / "one", images=3, study="S1", patient="P1")
    write_study(source / "two", images=2, study="S2", patient="P2")
    shutil.copy(next((source / "one").iterdir()), source / "copy.dcm")
    (source / "notes.txt").write_text("notes")
    (source / "empty").touch()
    write_instance(source, name="report.dcm", PixelData=None)
    whole = write_instance(source, name="cut.dcm").read_bytes()
    (source / "cut.dcm").write_bytes(whole[:-50])


MIXED = (10, 5, 1, 2, {"no_pixel_data": 1, "truncated": 1})


def test_every_file_is_accounted_for(home, source):
    mixed(source)
    summary = ingest_folder(home, source)
    assert counted(summary) == MIXED
    assert (summary.studies, summary.patients) == (2, 2)
    assert summary.seconds > 0
    catalog = Catalog(home)
    assert len(catalog.instances()) == 5 and len(catalog.rejections()) == 5
    assert Counter(catalog.rejections()["outcome"]) == {"not_dicom": 2, "rejected": 2, "duplicate": 1}
    assert catalog.rejections()["file"].is_unique
    for name in catalog.instances()["object"]:
        assert ObjectStore(home).read(name).pixel_array.shape == (16, 16)


def test_the_vault_leads_from_surrogates_back(home, source):
    mixed(source)
    ingest_folder(home, source)
    vault = Vault.open(home)
    instances, rejections = Catalog(home).instances(), Catalog(home).rejections()
    assert set(vault.originals("study", instances["study"]).values()) == {uid_of("S1"), uid_of("S2")}
    assert set(vault.originals("patient", instances["patient"]).values()) == {"P1", "P2"}
    assert len(vault.originals("instance", instances["instance"])) == 5
    paths = vault.originals("file", rejections["file"])
    named = {Path(paths[row.file]).name: row.code for row in rejections.itertuples()}
    assert named == {
        "notes.txt": "not_dicom",
        "empty": "empty_file",
        "report.dcm": "no_pixel_data",
        "cut.dcm": "truncated",
        # "copy.dcm" comes first in the order of paths, so it is the one that was taken
        **{name: "duplicate" for name in named if named[name] == "duplicate"},
    }
    assert Surrogates(vault.key).patient("P1") in set(instances["patient"])


def test_a_second_run_finds_the_same_files_and_takes_nothing_twice(home, source, monkeypatch):
    mixed(source)
    ingest_folder(home, source)
    before, version = tree(home.root), Catalog(home).version
    monkeypatch.setattr(ingest, "read_all", lambda *_: pytest.fail("a file was read again"))
    again = ingest_folder(home, source)
    assert counted(again) == (10, 0, 6, 2, {"no_pixel_data": 1, "truncated": 1})
    assert (again.studies, again.patients) == (2, 2)
    assert plan_batches(home, [source]) == []
    assert Catalog(home).version == version
    assert {k: v for k, v in tree(home.root).items() if "private" not in k} == {
        k: v for k, v in before.items() if "private" not in k
    }


def test_only_what_is_new_or_changed_is_read(home, source):
    mixed(source)
    ingest_folder(home, source)
    write_instance(source, name="new.dcm", study="S1", patient="P1")
    os.utime(source / "notes.txt", ns=(1, 1))
    (batch,) = plan_batches(home, [source])
    summary = ingest_batch(home, batch)
    assert batch.id == "b0002" and counted(summary) == (2, 1, 0, 1, {})
    assert counted(ingest_folder(home, source)) == (11, 0, 7, 2, MIXED[4])
    assert Catalog(home).studies()["instances"].sum() == 6


def test_the_same_files_elsewhere_are_duplicates(home, source, tmp_path):
    mixed(source)
    ingest_folder(home, source)
    shutil.copytree(source, tmp_path / "moved")
    summary = ingest_folder(home, tmp_path / "moved")
    assert counted(summary) == (10, 0, 6, 2, MIXED[4])
    assert len(Catalog(home).instances()) == 5


def test_two_exports_of_one_instance_are_duplicates_when_what_is_kept_is_the_same(home, source):
    options = {"patient": "P", "study": "S", "instance": "I", "pixels": picture(1), "InstanceNumber": 1}
    write_instance(source, name="a", **options)
    write_instance(source, name="b", InstitutionName="Elsewhere", **options)
    assert counted(ingest_folder(home, source)) == (2, 1, 1, 0, {})


@pytest.mark.parametrize("first", ["a", "z"])
def test_of_two_contents_under_one_uid_the_first_path_is_taken(home, source, first):
    write_instance(source, name=first, patient="P", instance="I", pixels=picture(1))
    write_instance(source, name="m", patient="P", instance="I", pixels=picture(2))
    assert counted(ingest_folder(home, source)) == (2, 1, 0, 0, {"conflicting_instance": 1})
    expected = Surrogates(Vault.open(home).key).digest(
        picture(1 if first == "a" else 2).astype("<u2").tobytes()
    )
    assert Catalog(home).instances()["pixels"].tolist() == [expected]


def test_a_file_that_changed_its_content_is_a_conflict_and_the_old_one_stays(home, source):
    write_instance(source, name="x", patient="P", instance="I", pixels=picture(1))
    ingest_folder(home, source)
    write_instance(source, name="x", patient="P", instance="I", pixels=picture(2, (8, 8)))
    assert counted(ingest_folder(home, source)) == (1, 0, 0, 0, {"conflicting_instance": 1})
    assert Catalog(home).instances()["rows"].tolist() == [16]


@pytest.mark.parametrize("together", [True, False])
def test_one_study_of_two_patients_and_one_series_of_two_studies_are_refused(home, source, together):
    write_instance(source, name="1", patient="P1", study="S1", series="R1")
    if not together:
        ingest_folder(home, source)
    write_instance(source, name="2", patient="P2", study="S1", series="R2")
    write_instance(source, name="3", patient="P1", study="S2", series="R1")
    summary = ingest_folder(home, source)
    assert summary.rejected == {"series_of_two_studies": 1, "study_of_two_patients": 1}
    assert len(Catalog(home).instances()) == 1


def test_a_refused_file_claims_nothing(home, source):
    # The study of the refused file stays free for its rightful patient.
    write_instance(source, name="1", patient="P1", study="S1", instance="I", series="R1")
    write_instance(source, name="2", patient="P9", study="S2", instance="I", series="R2")
    write_instance(source, name="3", patient="P2", study="S2", series="R2")
    assert counted(ingest_folder(home, source)) == (3, 2, 0, 0, {"conflicting_instance": 1})


KINDS = st.sampled_from(["new", "again", "other", "thief", "text", "empty", "cut", "report", "nobody"])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(kinds=st.lists(KINDS, min_size=1, max_size=12), split=st.integers(0, 12), order=st.randoms())
def test_found_is_always_the_sum_of_what_became_of_the_files(tmp_path_factory, kinds, split, order):
    root = tmp_path_factory.mktemp("mixture")
    home, source = Home.open(root / "home"), root / "source"
    names = [f"{number:03d}" for number in range(len(kinds))]
    order.shuffle(names)
    drawn = list(enumerate(zip(kinds, names, strict=True)))
    for part in (drawn[:split], drawn[split:]):
        for number, (kind, name) in part:
            _plant(source, kind, name, number)
        if part:
            _ingest_quietly(home, source)
    parts = [part for part in (drawn[:split], drawn[split:]) if part]
    if not _any_dicom(parts[0]):  # waits until DICOM comes
        parts = [drawn] if _any_dicom(drawn) else []
    runs = [sorted(part, key=lambda item: item[1][1]) for part in parts]
    expected = _expected([(kind, number) for run in runs for number, (kind, _) in run])
    records = Vault.open(home).known_files().values()
    assert Counter(record.code or record.outcome for record in records) == expected
    catalog = Catalog(home)
    summaries = [catalog.summary(batch) for batch in catalog.batches()]
    assert sum(summary["found"] for summary in summaries) == expected.total() == len(records)
    assert sum(summary["accepted"] for summary in summaries) == expected["accepted"]
    instances = catalog.instances()
    assert len(instances) == instances["instance"].nunique() == expected["accepted"]
    assert (instances.groupby("study")["patient"].nunique() == 1).all()


def _any_dicom(part: list[tuple[int, tuple[str, str]]]) -> bool:
    return any(kind not in ("text", "empty") for _, (kind, _) in part)


def _expected(files: list[tuple[str, int]]) -> Counter[str]:
    """Say what becomes of planted files, given in the order in which they are read."""
    simple = {
        "new": "accepted",
        "text": "not_dicom",
        "empty": "empty_file",
        "cut": "truncated",
        "report": "no_pixel_data",
        "nobody": "missing_patient",
    }
    codes: Counter[str] = Counter()
    owner: str | None = None
    content: int | None = None
    for kind, number in files:
        if kind in simple:
            codes[simple[kind]] += 1
            continue
        mine = -1 if kind == "again" else number
        patient = f"thief{number}" if kind == "thief" else "P0"
        if kind != "thief" and content is not None:
            codes["duplicate" if content == mine else "conflicting_instance"] += 1
        elif owner not in (None, patient):
            codes["study_of_two_patients"] += 1
        else:
            codes["accepted"] += 1
            owner = patient
            content = mine if kind != "thief" else content
    return codes


def _plant(source: Path, kind: str, name: str, number: int) -> None:
    source.mkdir(exist_ok=True)
    shared = {"name": name, "patient": "P0", "study": "S0", "InstanceNumber": 0, "instance": "I0"}
    if kind == "text":
        (source / name).write_text("no DICOM")
    elif kind == "empty":
        (source / name).touch()
    elif kind == "again":
        write_instance(source, pixels=picture(0), **shared)
    elif kind == "other":
        write_instance(source, pixels=picture(1 + number), **shared)
    elif kind == "thief":  # the study of another patient
        write_instance(source, **{**shared, "patient": f"thief{number}", "instance": f"T{number}"})
    elif kind == "report":
        write_instance(source, name=name, PixelData=None)
    elif kind == "nobody":
        write_instance(source, name=name, PatientID="")
    else:
        path = write_instance(source, name=name, patient=f"P{number}", instance=f"N{number}")
        if kind == "cut":
            path.write_bytes(path.read_bytes()[:-9])


def _ingest_quietly(home: Home, source: Path) -> None:
    try:
        ingest_folder(home, source)
    except MetaDxError as fault:
        assert fault.code == "source_without_dicom"


def test_sources_are_planned_each_as_one_batch(home, tmp_path):
    for name in ("first", "second", "third"):
        write_study(tmp_path / name, study=name, patient=name)
    sources = [tmp_path / name for name in ("second", "first")]
    batches = plan_batches(home, sources)
    assert [(b.id, b.source.name) for b in batches] == [("b0001", "second"), ("b0002", "first")]
    assert plan_batches(home, sources[::-1]) == batches
    ingest_batch(home, batches[1])
    batches = plan_batches(home, [*sources, tmp_path / "third"])
    assert [(b.id, b.source.name) for b in batches] == [("b0001", "second"), ("b0003", "third")]
    for batch in batches:
        ingest_batch(home, batch)
    assert Catalog(home).batches() == ["b0001", "b0002", "b0003"]
    assert len(Catalog(home).studies()) == 3


def test_a_finished_batch_is_not_done_again(home, source):
    mixed(source)
    (batch,) = plan_batches(home, [source])
    first = ingest_batch(home, batch)
    shutil.rmtree(source)
    assert counted(ingest_batch(home, batch)) == counted(first) == MIXED


def test_progress_counts_every_file(home, source):
    mixed(source)
    steps = []
    ingest_folder(home, source, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(done, 10) for done in range(1, 11)]


def test_processes_and_threads_give_the_same_bytes(home, source):
    mixed(source)
    write_study(source / "many", images=40, study="S9", patient="P9")
    other, third = twin(home, "other"), twin(home, "third")
    ingest_folder(home, source)
    ingest_folder(other, source, options=IngestOptions(workers=2))
    with ThreadPoolExecutor(1) as executor:
        ingest_folder(third, source, executor=executor)
    assert tree(home.catalog) == tree(other.catalog) == tree(third.catalog)
    assert tree(home.objects) == tree(other.objects) == tree(third.objects)


def test_limits_are_kept(home, source):
    write_instance(source)
    summary = ingest_folder(home, source, options=IngestOptions(max_file_bytes=100))
    assert summary.rejected == {"file_too_large": 1}


def test_a_file_that_could_not_be_opened_is_tried_again(home, source, hostile, monkeypatch):
    path = write_instance(source)
    write_instance(source)
    closed = path.with_name(f"{path.name} is closed")
    closed.mkdir()
    assert ingest_folder(home, source).rejected == {"unreadable_file": 1}
    with monkeypatch.context() as patch:
        patch.setattr(known, "can_be_opened", lambda _: False)
        assert plan_batches(home, [source]) == []
    closed.rmdir()
    assert counted(ingest_folder(home, source)) == (2, 1, 1, 0, {})


class Death(BaseException):
    pass


@pytest.mark.parametrize("step", ["write_batch", "put", "record_files", "remember", "flush"])
@pytest.mark.parametrize("after", [False, True])
def test_a_run_that_dies_at_any_step_and_runs_again_ends_with_the_same_bytes(
    home, source, monkeypatch, step, after
):
    mixed(source)
    control = twin(home, "control")
    ingest_folder(control, source)
    place = {"write_batch": ingest, "record_files": Vault, "remember": Vault}.get(step, ObjectStore)
    real = getattr(place, step)

    def dies(*args, **options):
        if after:
            real(*args, **options)
        raise Death

    with monkeypatch.context() as patch:
        patch.setattr(place, step, dies)
        with pytest.raises(Death):
            ingest_folder(home, source)
        finished = step == "write_batch" and after
        assert Catalog(home).batches() == (["b0001"] if finished else [])
    summary = ingest_folder(home, source)
    assert counted(summary) == ((10, 0, 6, *MIXED[3:]) if finished else MIXED)
    assert tree(home.catalog) == tree(control.catalog)
    assert tree(home.objects) == tree(control.objects)
    assert Vault.open(home).known_files() == Vault.open(control).known_files()


@pytest.mark.parametrize("files", [1, 3])
def test_what_the_vault_learned_before_a_death_changes_nothing(home, source, monkeypatch, files):
    mixed(source)
    control = twin(home, "control")
    ingest_folder(control, source)
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "_MANY", files)
        patch.setattr(ObjectStore, "flush", lambda _: (_ for _ in ()).throw(Death))
        with pytest.raises(Death):
            ingest_folder(home, source)
        assert len(Vault.open(home).known_files()) >= 9
        assert Catalog(home).batches() == []
    assert counted(ingest_folder(home, source)) == MIXED
    assert tree(home.catalog) == tree(control.catalog)
    assert tree(home.objects) == tree(control.objects)
    assert Vault.open(home).known_files() == Vault.open(control).known_files()


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, "disk_full"), (errno.EROFS, "read_only"), (errno.EACCES, "not_writable")],
)
def test_a_disk_that_refuses_ends_with_one_sentence_and_loses_nothing(
    home, source, monkeypatch, number, code
):
    write_study(source / "one", study="S1", patient="P1")
    ingest_folder(home, source)
    before = tree(home.catalog)
    mixed(source)
    real = Path.write_bytes

    def refuse(self, data):
        if "objects" in self.parts:
            raise OSError(number, os.strerror(number))
        return real(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", refuse)
        with pytest.raises(MetaDxError) as fault:
            ingest_folder(home, source)
    assert fault.value.code == code and str(home.objects) in str(fault.value)
    assert tree(home.catalog) == before
    ingest_folder(home, source)
    assert len(Catalog(home).batches()) == 2


def test_an_empty_folder_and_one_without_dicom_are_said(home, source, tmp_path):
    with pytest.raises(MetaDxError, match="no file") as empty:
        ingest_folder(home, source)
    (source / "letter.txt").write_text("letter")
    with pytest.raises(MetaDxError, match="no DICOM") as without:
        ingest_folder(home, source)
    with pytest.raises(MetaDxError, match="does not exist") as missing:
        ingest_folder(home, tmp_path / "nowhere")
    codes = [fault.value.code for fault in (empty, without, missing)]
    assert codes == ["source_empty", "source_without_dicom", "source_missing"]
    with pytest.raises(MetaDxError, match="no DICOM"):
        ingest_folder(home, source)
    assert Catalog(home).batches() == [] and plan_batches(home, [source]) == []
    write_instance(source)
    assert counted(ingest_folder(home, source)) == (2, 1, 0, 1, {})


def test_a_home_inside_its_source_does_not_eat_itself(source):
    home = Home.open(source / "home")
    write_instance(source)
    ingest_folder(home, source)
    assert counted(ingest_folder(home, source)) == (1, 0, 1, 0, {})


def test_names_that_are_no_text_are_taken(home, source):
    path = write_instance(source)
    path.rename(source / os.fsdecode(b"\xff\xfe.dcm"))
    (source / os.fsdecode(b"\xff.txt")).write_text("x")
    assert counted(ingest_folder(home, source)) == (2, 1, 0, 1, {})
    assert counted(ingest_folder(home, source)) == (2, 0, 1, 1, {})


def test_a_summary_that_does_not_add_up_is_a_fault_of_ours():
    with pytest.raises(RuntimeError, match="accounted"):
        IngestSummary(found=3, accepted=1, duplicates=0, not_dicom=1)
