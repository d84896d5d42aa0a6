import shutil
from datetime import date
from pathlib import Path

import pytest

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.diagnoses import active_diagnoses, all_diagnoses, diagnoses_version, import_diagnoses
from meta_dx.cohort.ingest import ingest_folder
from meta_dx.dicom.identity import Surrogates
from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from meta_dx.records.vault import Vault
from tests.dicom.builders import uid_of, write_instance

HEADER = "study_instance_uid,patient_id,accession_number,code,coding_scheme,meaning"
S1, S2, S3 = uid_of("S1"), uid_of("S2"), uid_of("S3")


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("filled")
    for number in (1, 2, 3):
        write_instance(root / "source", patient=f"P{number}", study=f"S{number}")
    write_instance(root / "source", patient="P4", study="S4", IssuerOfPatientID="north")
    ingest_folder(Home.open(root / "home"), root / "source")
    return root / "home"


@pytest.fixture
def home(filled, tmp_path) -> Home:
    return Home.open(shutil.copytree(filled, tmp_path / "home"))


def table(tmp_path: Path, *lines: str, header: str = HEADER, encoding: str = "utf-8") -> Path:
    path = tmp_path / "diagnoses.csv"
    path.write_bytes("\n".join([header, *lines, ""]).encode(encoding))
    return path


def surrogates(home: Home) -> Surrogates:
    return Surrogates(Vault.open(home).key)


def test_diagnoses_join_the_studies_under_surrogates(home, tmp_path):
    summary = import_diagnoses(
        home,
        table(tmp_path, f"{S1},P1,A1,D1,X,Alpha", f"{S2},P2,,D2,X,Beta", f"{uid_of('S9')},P9,,D1,X,Alpha"),
    )
    assert (summary.rows, summary.active, summary.studies, summary.diseases) == (3, 3, 3, 2)
    assert (summary.unknown_studies, summary.undiagnosed_studies, summary.problems) == (1, 2, {})
    rows, names = active_diagnoses(home), surrogates(home)
    one = rows[rows["study"] == names.uid(S1)].iloc[0]
    assert (one["patient"], one["accession"]) == (names.patient("P1"), names.accession("A1"))
    assert (one["code"], one["scheme"], one["meaning"]) == ("D1", "X", "Alpha")
    joined = rows.merge(Catalog(home).studies(), on=["study", "patient"])
    assert sorted(joined["code"]) == ["D1", "D2"]
    assert Catalog(home).diagnoses().equals(rows)
    assert not [f for f in (home.root / "diagnoses").rglob("*") if S1.encode() in f.read_bytes()]


def test_the_order_of_the_lines_does_not_matter_and_nothing_is_written_twice(home, tmp_path):
    lines = [f"{S1},P1,,D1,X,Alpha", f"{S2},P2,,D2,X,Beta"]
    first = import_diagnoses(home, table(tmp_path, *lines))
    second = import_diagnoses(home, table(tmp_path, *lines[::-1]))
    assert first == second
    assert sorted(f.name for f in (home.root / "diagnoses").iterdir()) == sorted(
        ["current.json", f"{first.version}.parquet"]
    )


def test_a_new_table_replaces_the_old_one_which_stays(home, tmp_path):
    old = import_diagnoses(home, table(tmp_path, f"{S1},P1,,D1,X,Alpha"))
    new = import_diagnoses(home, table(tmp_path, f"{S2},P2,,D2,X,Beta"))
    assert diagnoses_version(home) == new.version != old.version
    assert active_diagnoses(home)["code"].tolist() == ["D2"]
    assert (home.root / "diagnoses" / f"{old.version}.parquet").exists()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_exports_of_any_spreadsheet_are_read(home, tmp_path, encoding, delimiter):
    lines = [f"{S1} ,P1,,D1,X,Ménière's disease", "", " , , , , , "]
    path = table(
        tmp_path,
        *(line.replace(",", delimiter) for line in lines),
        header=" " + HEADER.upper().replace("_", " ").replace(",", f" {delimiter} "),
        encoding=encoding,
    )
    summary = import_diagnoses(home, path)
    assert summary.rows == 1 and summary.unknown_studies == 0
    assert active_diagnoses(home)["meaning"].tolist() == ["Ménière's disease"]


def test_quotes_line_ends_and_other_columns_are_understood(home, tmp_path):
    path = tmp_path / "d.csv"
    path.write_bytes(
        f'site,{HEADER}\r\n"Kiel, north",{S1},P1,A1,D1,X,"Alpha, ""so-called""\nsecond line"\r\n'.encode()
    )
    import_diagnoses(home, path)
    assert active_diagnoses(home)["meaning"].tolist() == ['Alpha, "so-called"\nsecond line']


@pytest.mark.parametrize("column", HEADER.split(","))
def test_a_missing_column_is_named(home, tmp_path, column):
    left = [name for name in HEADER.split(",") if name != column]
    with pytest.raises(MetaDxError, match=rf"no column {column}:") as fault:
        import_diagnoses(home, table(tmp_path, "1,2,3,4,5", header=",".join(left)))
    assert fault.value.code == "diagnoses_columns"
    assert diagnoses_version(home) is None


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "diagnoses_columns"),
        (HEADER.encode() + b"\n", "diagnoses_empty"),
        (HEADER.encode() + b"\n,P1,,D1,X,Alpha\n", "diagnoses_empty"),
        (b"PK\x03\x04\x14\0\x06\0" + bytes(50), "diagnoses_unreadable"),
        (b"\xff\xfea", "diagnoses_unreadable"),
        (HEADER.encode() + b'\n"open', "diagnoses_unreadable"),
    ],
)
def test_what_is_no_table_is_refused_in_one_sentence(home, tmp_path, content, code):
    path = tmp_path / "d.csv"
    path.write_bytes(content)
    with pytest.raises(MetaDxError) as fault:
        import_diagnoses(home, path)
    assert fault.value.code == code and str(path) in str(fault.value)


def test_a_missing_file_is_said(home, tmp_path):
    with pytest.raises(MetaDxError) as fault:
        import_diagnoses(home, tmp_path / "nothing.csv")
    assert fault.value.code == "diagnoses_missing"


def test_a_table_of_other_studies_is_refused_and_the_old_one_stays(home, tmp_path):
    old = import_diagnoses(home, table(tmp_path, f"{S1},P1,,D1,X,Alpha"))
    with pytest.raises(MetaDxError) as fault:
        import_diagnoses(home, table(tmp_path, f"{uid_of('S9')},P9,,D1,X,Alpha"))
    assert fault.value.code == "diagnoses_of_other_studies"
    assert diagnoses_version(home) == old.version


def test_an_empty_home_wants_images_first(tmp_path):
    with pytest.raises(MetaDxError, match="ingest the DICOM folder first"):
        import_diagnoses(Home.open(tmp_path / "new"), table(tmp_path, f"{S1},P1,,D1,X,Alpha"))
    assert active_diagnoses(Home.open(tmp_path / "new")).empty


def test_problems_are_counted(home, tmp_path):
    summary = import_diagnoses(
        home,
        table(
            tmp_path,
            f"{S1},P1,,D1,X,Alpha",
            f"{S1},P1,,D1,X,Alpha",
            f"{S2},P1,,D2,X,Beta",
            f"{S3},,,D3,X,Gamma",
            ",P1,,D1,X,Alpha",
            f"{S1},P1,,,X,Alpha",
            f"{S2},P2,,D4",
            f"{S2},P2,,D5,X,Delta,more,and more",
        ),
    )
    assert summary.problems == {
        "another_patient": 1,
        "odd_length": 2,
        "repeated": 1,
        "without_code": 1,
        "without_patient": 1,
        "without_study": 1,
    }
    assert summary.rows == 5
    rows, names = active_diagnoses(home), surrogates(home)
    assert rows[rows["code"] == "D3"]["patient"].tolist() == [names.patient("P3")]
    assert rows[rows["code"] == "D2"]["patient"].tolist() == [names.patient("P1")]
    assert rows[rows["code"] == "D4"]["meaning"].isna().all()


def test_a_superseded_diagnosis_no_longer_holds(home, tmp_path):
    header = HEADER + ",basis,diagnosed_on,valid_from,superseded_by"
    summary = import_diagnoses(
        home,
        table(
            tmp_path,
            f"{S1},P1,,D1,X,Alpha,reader,2020-01-01,,D2",
            f"{S1},P1,,D2,X,Beta,histology,2020-03-01,2020-03-05,",
            header=header,
        ),
    )
    assert (summary.rows, summary.active, summary.diseases) == (2, 1, 1)
    assert active_diagnoses(home)[["code", "basis"]].values.tolist() == [["D2", "histology"]]
    assert len(all_diagnoses(home)) == 2


def test_dates_are_moved_like_the_study_date(home, tmp_path):
    header = HEADER + ",diagnosed_on,valid_from"
    summary = import_diagnoses(
        home, table(tmp_path, f"{S1},P1,,D1,X,Alpha,2024-03-10,soon", f"{S2},P2,,D2,X,Beta,,", header=header)
    )
    assert summary.problems == {"unreadable_date": 1}
    rows = active_diagnoses(home).merge(Catalog(home).studies(), on="study")
    row = rows[rows["code"] == "D1"].iloc[0]
    apart = date.fromisoformat(row["diagnosed_on"]) - date.fromisoformat(row["study_date"])
    assert apart == date(2024, 3, 10) - date(2024, 2, 29)  # the builder's study date
    assert row["diagnosed_on"] < "2024-03-10"
    assert rows["valid_from"].isna().all()


@pytest.mark.parametrize("issuer", [None, "north", "south"])
def test_an_issuer_of_the_images_does_not_make_the_table_anothers(home, tmp_path, issuer):
    header = HEADER + (",issuer_of_patient_id" if issuer else "")
    line = f"{uid_of('S4')},P4,,D1,X,Alpha" + (f",{issuer}" if issuer else "")
    summary = import_diagnoses(home, table(tmp_path, line, header=header))
    assert summary.problems == ({"another_patient": 1} if issuer == "south" else {})
    patient = active_diagnoses(home)["patient"].tolist()
    assert (patient == [surrogates(home).patient("P4", "north")]) == (issuer != "south")
