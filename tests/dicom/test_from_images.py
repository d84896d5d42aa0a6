"""Picture files become DICOM: nothing lost, nothing carried along, and ingest takes all of it."""

from __future__ import annotations

import csv
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image, ImageFilter
from pydicom import dcmread
from pydicom.dataset import Dataset

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.diagnoses import import_diagnoses
from meta_dx.cohort.ingest import ingest_folder
from meta_dx.dicom import from_images
from meta_dx.dicom.from_images import images_to_dicom
from meta_dx.dicom.picture_table import code_of
from meta_dx.dicom.pictures import bare_jpeg
from meta_dx.dicom.pixels import StoredPixels, physical_pixels
from meta_dx.dicom.rejections import RefusedError, RejectionCode
from meta_dx.errors import MetaDxError
from meta_dx.home import Home

GREY = np.arange(15 * 17, dtype=np.uint8).reshape(15, 17)
COLOUR = np.random.default_rng(4).integers(0, 256, (15, 17, 3)).astype(np.uint8)
DEEP = np.random.default_rng(5).integers(0, 65536, (9, 7)).astype(np.uint16)


def photo(seed: int = 0, size: tuple[int, int] = (61, 45)) -> Image.Image:
    """A smooth picture with colours, as a camera gives one."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    return Image.fromarray(noise).filter(ImageFilter.GaussianBlur(4))


def saved(image: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def put(folder: Path, **pictures: Image.Image | np.ndarray | bytes) -> None:
    """Write pictures: ``a_png=…`` becomes ``a.png``."""
    for name, picture in pictures.items():
        path = folder / ".".join(name.rsplit("_", 1))
        if isinstance(picture, bytes):
            path.write_bytes(picture)
        else:
            (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(path)


def table_of(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "table.csv"
    path.write_bytes("\n".join(line.strip() for line in text.strip().splitlines()).encode(encoding))
    return path


def written(out: Path) -> list[Dataset]:
    """All instances, by study and number."""
    return sorted(
        (dcmread(path) for path in out.rglob("*.dcm")), key=lambda d: (d.StudyInstanceUID, d.InstanceNumber)
    )


def converted(folder: Path, picture: Image.Image | np.ndarray | bytes, name: str = "a_png") -> Dataset:
    """Convert one picture alone."""
    put(folder, **{name: picture})
    table = table_of(folder, f"path,patient,diagnosis\n{'.'.join(name.rsplit('_', 1))},P1,nevus")
    images_to_dicom(table, folder / "out")
    (dataset,) = written(folder / "out")
    return dataset


def fault(folder: Path, text: str) -> MetaDxError:
    """Convert a table that must be refused, and see that nothing is left of the attempt."""
    table = table_of(folder, text)
    before = sorted(folder.iterdir())
    with pytest.raises(MetaDxError) as raised:
        images_to_dicom(table, folder / "out")
    assert sorted(folder.iterdir()) == before
    assert str(table) in str(raised.value)
    return raised.value


def test_ingest_takes_every_file_and_every_diagnosis(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    put(pictures, a_jpg=photo(1), b_jpg=photo(2).convert("L"), c_png=COLOUR, d_png=DEEP, e_bmp=GREY)
    put(pictures, f_tif=DEEP, g_png=Image.fromarray(COLOUR).quantize(16), h_png=GREY, i_jpg=photo(3))
    table = table_of(
        pictures,
        """
        path,patient,diagnosis,study,age,sex,site,date,view,modality
        a.jpg,P1,melanoma,V1,45.0,female,head/neck,2020-03-01,,
        b.jpg,P1,melanoma,V1,,,,,,
        c.png,P1,nevus,V2,46,F,lower extremity,20210301,,ES
        d.png,P2,pneumonia,,60,m,chest,,PA,DX
        e.bmp,P2,pneumonia,,60,m,chest,,PA,CR
        f.tif,Ü3,Pneumonia,,,unknown,,,,
        g.png,Ü3,,,,,,,,
        h.png,P4,nevus,,nan,,,,,CT
        i.jpg,P4,nevus,,,,,,,XC
        """,
    )
    out = tmp_path / "out"
    summary = images_to_dicom(table, out)
    home = Home.open(tmp_path / "home")
    taken = ingest_folder(home, out)
    assert (taken.found, taken.accepted, taken.not_dicom, taken.rejected) == (10, 9, 1, {})
    assert (summary.images, summary.studies, summary.patients) == (9, taken.studies, taken.patients)
    assert (taken.studies, taken.patients, summary.diseases) == (8, 4, 3)
    diagnoses = import_diagnoses(home, out / "diagnoses.csv")
    assert (diagnoses.rows, diagnoses.studies, diagnoses.diseases) == (7, 7, 3)
    assert (diagnoses.unknown_studies, diagnoses.undiagnosed_studies, diagnoses.problems) == (0, 1, {})
    rows = Catalog(home).instances()
    assert sorted(rows["modality"]) == ["CR", "CT", "DX", "ES", "OT", "OT", "XC", "XC", "XC"]
    assert set(rows["body_part"].dropna()) == {"HEAD NECK", "LOWER EXTREMITY", "CHEST"}


@settings(max_examples=25, deadline=None)
@given(
    arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))
    | arrays(np.uint16, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))
    | arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))),
    st.sampled_from(["png", "tif"]),
)
def test_pixels_of_lossless_files_are_exact(tmp_path_factory, pixels, form):
    dataset = converted(tmp_path_factory.mktemp("exact"), pixels, f"a_{form}")
    assert dataset.pixel_array.tobytes() == pixels.tobytes()
    assert dataset.BitsStored == 8 * pixels.itemsize
    assert dataset.LossyImageCompression == "00"


@pytest.mark.parametrize(
    ("name", "picture", "shown"),
    [
        ("a_bmp", COLOUR, COLOUR),
        ("a_png", Image.fromarray(np.dstack([COLOUR, GREY])), COLOUR),  # what lies under transparency counts
        ("a_png", Image.fromarray(np.dstack([GREY, GREY]), "LA"), GREY),
        ("a_png", Image.fromarray(GREY > 99), np.where(GREY > 99, 255, 0)),
        ("a_png", Image.fromarray(GREY // 4 * 4).convert("P"), GREY // 4 * 4),  # a palette of greys
        ("a_tif", saved(Image.fromarray(DEEP), "TIFF", tiffinfo={262: 0}), 65535 - DEEP),  # white is zero
        ("a_tif", saved(Image.fromarray(GREY), "TIFF", tiffinfo={274: 6}), np.rot90(GREY, -1)),
    ],
)
def test_kinds_of_files_show_the_same_picture(tmp_path, name, picture, shown):
    dataset = converted(tmp_path, picture, name)
    np.testing.assert_array_equal(dataset.pixel_array, shown)
    assert dataset.SamplesPerPixel == (3 if shown.ndim == 3 else 1)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_a_colour_jpeg_is_kept_as_it_was_coded(tmp_path, subsampling):
    data = saved(photo(), quality=85, subsampling=subsampling)
    dataset = converted(tmp_path, data, "a_jpg")
    assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.50"
    assert (dataset.PhotometricInterpretation, dataset.LossyImageCompression) == ("YBR_FULL_422", "01")
    scan = data[data.index(b"\xff\xda") :]
    assert scan in dataset.PixelData  # coefficient for coefficient
    difference = np.abs(physical_pixels(dataset) - np.asarray(Image.open(BytesIO(data)), np.float32))
    # Where chroma is sub-sampled, decoders interpolate it differently, at few pixels by more than 2 levels.
    assert np.quantile(difference, 0.99) <= 2
    assert difference.max() <= (3 if subsampling == "4:4:4" else 8)


def test_a_grey_jpeg_is_kept_as_it_was_coded(tmp_path):
    data = saved(photo().convert("L"))
    dataset = converted(tmp_path, data, "a_jpg")
    assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.50"
    assert (dataset.PhotometricInterpretation, dataset.SOPClassUID.name) == (
        "MONOCHROME2",
        "Secondary Capture Image Storage",
    )
    assert np.abs(physical_pixels(dataset) - np.asarray(Image.open(BytesIO(data)), np.float32)).max() <= 2


@pytest.mark.parametrize(
    "data",
    [
        saved(photo(), progressive=True),
        saved(photo(), exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
        saved(photo().convert("CMYK")),
        saved(photo(), keep_rgb=True),
    ],
    ids=["progressive", "rotated", "cmyk", "rgb"],
)
def test_other_jpegs_are_decoded_and_upright(tmp_path, data):
    dataset = converted(tmp_path, data, "a_jpg")
    image = Image.open(BytesIO(data))
    expected = np.asarray(image.convert("RGB"))
    if image.getexif().get(274) == 6:
        expected = np.rot90(expected, -1)
    assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert (dataset.PhotometricInterpretation, dataset.LossyImageCompression) == ("RGB", "01")
    np.testing.assert_array_equal(dataset.pixel_array, expected)


def test_a_rotated_jpeg_is_turned_even_where_both_ways_look_nearly_alike(tmp_path):
    pale = np.full((32, 32), 200, np.uint8)
    pale[:2, :2] = 230
    exif = Image.Exif()
    exif[274] = 3
    dataset = converted(tmp_path, saved(Image.fromarray(pale), exif=exif), "a_jpg")
    assert dataset.pixel_array[-1, -1] > 215


@pytest.mark.parametrize("kind", ["another picture", "refusal"])
def test_a_jpeg_that_ingest_would_read_differently_is_decoded_instead(tmp_path, monkeypatch, kind):
    def decode(dataset: Dataset) -> StoredPixels:
        if kind == "refusal":
            raise RefusedError(RejectionCode.DAMAGED_PIXELS)
        return StoredPixels(np.zeros((1, dataset.Rows, dataset.Columns, 3), np.uint8), 8)

    monkeypatch.setattr(from_images, "decode", decode)
    data = saved(photo())
    dataset = converted(tmp_path, data, "a_jpg")
    assert (dataset.file_meta.TransferSyntaxUID.is_encapsulated, dataset.PhotometricInterpretation) == (
        False,
        "RGB",
    )
    np.testing.assert_array_equal(dataset.pixel_array, np.asarray(Image.open(BytesIO(data))))


def test_the_thumbnail_of_a_jfif_segment_stays_behind():
    data = saved(photo())
    assert data[2:11] == b"\xff\xe0\x00\x10JFIF\0"
    with_thumbnail = data[:5] + b"\x13" + data[6:18] + b"\x01\x01" + b"abc" + data[20:]
    assert bare_jpeg(with_thumbnail) == bare_jpeg(data) is not None


def test_a_picture_that_changes_during_the_run_stops_it(tmp_path):
    put(tmp_path, a_png=GREY)
    table = table_of(tmp_path, "path,patient,diagnosis\na.png,P1,d")

    def change(done: int, total: int, message: str = "") -> None:
        put(tmp_path, a_png=DEEP)

    with pytest.raises(MetaDxError, match="changed"):
        images_to_dicom(table, tmp_path / "out", progress=change)
    assert not (tmp_path / "out").exists()


def test_nothing_but_the_picture_leaves_the_file(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Secret Maker"
    exif[0x013B] = "Secret Artist"
    exif.get_ifd(0x8825)[29] = "2020:01:01 secret"
    data = saved(photo(), exif=exif, comment=b"secret comment", icc_profile=b"secret profile")
    put(tmp_path, secret_jpg=data + b"secret tail", secret_png=COLOUR)
    Image.fromarray(COLOUR).save(tmp_path / "secret.tif", description="secret", software="secret")
    rows = [f"secret.{form},P1,secret disease,secret study" for form in ("jpg", "png", "tif")]
    table = table_of(tmp_path, "\n".join(["path,patient,diagnosis,study", *rows]))
    images_to_dicom(table, tmp_path / "out")
    files = list((tmp_path / "out").rglob("*.dcm"))
    assert len(files) == 3
    for path in files:
        assert b"secret" not in path.read_bytes().lower()
        assert "secret" not in str(path.relative_to(tmp_path / "out"))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40), st.integers(2, 900))
def test_damaged_jpeg_streams_never_crash_the_parser(noise, place):
    data = saved(photo())
    assert bare_jpeg(b"\xff\xd8" + noise) is None or noise
    bare = bare_jpeg(data[:place] + noise + data[place:])
    assert bare is None or bare.startswith(b"\xff\xd8")


def test_a_second_run_writes_the_same_bytes(tmp_path):
    put(tmp_path, a_jpg=photo(), b_png=DEEP)
    table = table_of(
        tmp_path, "path,patient,diagnosis,study\na.jpg,P1,x,S\nb.png,P1,x,S\nb.png,P1,y,\nb.png,P1,y,"
    )
    for name in ("one", "two"):
        images_to_dicom(table, tmp_path / name)
    files = [
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")
         if path.is_file()}
        for name in ("one", "two")
    ]  # fmt: skip
    assert files[0] == files[1]
    assert len(files[0]) == 5


def test_rows_of_one_study_become_one_study_in_the_order_of_the_table(tmp_path):
    put(tmp_path, a_png=COLOUR, b_png=GREY, c_png=COLOUR[::-1].copy())
    table = table_of(
        tmp_path,
        """
        path,patient,diagnosis,study,age,date
        c.png,P1,nevus,S,,
        b.png,P1,nevus,S,31.5,
        a.png,P1,nevus,S,,2020-05-06
        a.png,P1,scar,T,,
        """,
    )
    summary = images_to_dicom(table, tmp_path / "out")
    assert (summary.images, summary.studies, summary.patients, summary.diseases) == (4, 2, 1, 2)
    of_study: dict[str, list[Dataset]] = {}
    for dataset in written(tmp_path / "out"):
        of_study.setdefault(dataset.StudyInstanceUID, []).append(dataset)
    (alone,), study = sorted(of_study.values(), key=len)
    assert alone.StudyDate == ""
    assert [d.InstanceNumber for d in study] == [1, 2, 3]
    assert [d.SeriesNumber for d in study] == [1, 2, 1]
    assert len({d.SeriesInstanceUID for d in study}) == 2
    assert {(d.PatientAge, d.StudyDate) for d in study} == {("031Y", "20200506")}
    for dataset, pixels in zip(study, (COLOUR[::-1], GREY, COLOUR), strict=True):
        np.testing.assert_array_equal(dataset.pixel_array, pixels)


def test_the_same_file_again_is_another_picture_or_another_study(tmp_path):
    put(tmp_path, a_png=GREY)
    rows = ["a.png,P1,d,S", "a.png,P1,d,S", "a.png,P1,d,", "a.png,P1,d,", "a.png,P2,d,"]
    table = table_of(tmp_path, "\n".join(["path,patient,diagnosis,study", *rows]))
    summary = images_to_dicom(table, tmp_path / "out")
    assert (summary.images, summary.studies, summary.patients) == (5, 4, 2)
    datasets = written(tmp_path / "out")
    assert len({d.SOPInstanceUID for d in datasets}) == 5
    assert len({d.StudyInstanceUID for d in datasets}) == 4


def test_the_diagnosis_table_names_each_study_once_for_each_code(tmp_path):
    put(tmp_path, a_png=GREY, b_png=DEEP)
    table = table_of(
        tmp_path,
        """
        path,patient,diagnosis,study,code
        a.png,P1,Basal cell carcinoma,S,C44
        b.png,P1,basal  cell Carcinoma,S,C44
        a.png,P2,"nevus, blue",,
        b.png,P3,,,
        """,
    )
    images_to_dicom(table, tmp_path / "out")
    with (tmp_path / "out" / "diagnoses.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(r["patient_id"], r["code"], r["coding_scheme"], r["meaning"]) for r in rows] == [
        ("P1", "C44", "99LOCAL", "Basal cell carcinoma"),
        ("P2", code_of("Nevus,  BLUE"), "99LOCAL", "nevus, blue"),
    ]
    assert {r["study_instance_uid"] for r in rows} <= {d.StudyInstanceUID for d in written(tmp_path / "out")}


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("path,patient,diagnosis\na.png,P1,Nävus", "utf-8-sig"),
        ("Path; PATIENT ;diagnosis\n\na.png;P1;Nävus", "cp1252"),
        ("diagnosis\tpath\tpatient\tnote\nNävus\ta.png\tP1\tx", "utf-16"),
    ],
)
def test_tables_as_spreadsheets_save_them(tmp_path, text, encoding):
    put(tmp_path, a_png=GREY)
    images_to_dicom(table_of(tmp_path, text, encoding), tmp_path / "out")
    assert ",99LOCAL,Nävus\n" in (tmp_path / "out" / "diagnoses.csv").read_text("utf-8")


@pytest.mark.parametrize(
    ("row", "column", "code"),
    [
        ("x.png,P1,d", "path", "picture_missing"),
        (",P1,d", "path", "table_value"),
        ("a.png,,d", "patient", "table_value"),
        ("a.png,P\\1,d", "patient", "table_value"),
        ("bad.jpg,P1,d", "path", "picture_unreadable"),
        ("cut.png,P1,d", "path", "picture_unreadable"),
        ("two.tif,P1,d", "path", "picture_unreadable"),
        ("float.tif,P1,d", "path", "picture_unreadable"),
        ("table.csv,P1,d", "path", "picture_unreadable"),
        ("a.png,P1,d,,-1", "age", "table_value"),
        ("a.png,P1,d,,old", "age", "table_value"),
        ("a.png,P1,d,,,x", "sex", "table_value"),
        ("a.png,P1,d,,,,2021-02-29", "date", "table_value"),
        ("a.png,P1,d,,,,01/02/2021", "date", "table_value"),
        ("a.png,P1,d,,,,,SEG", "modality", "table_value"),
        ("c.png,P1,d,,,,,DX", "modality", "colour_radiograph"),
        ("a.png,P1,,,,,,,C1", "diagnosis", "table_value"),
        ("a.png,P1,d, e,,,,,,,x", "code", "table_value"),
        ("a.png,P2,d,S", "patient", "study_of_two_patients"),
        ("a.png,P1,d,S,41", "age", "study_contradicts"),
        ("a.png,P1,d,S,,F", "sex", "study_contradicts"),
        ("a.png,P1,d,S,,,2020-01-02", "date", "study_contradicts"),
        ("a.png,P1,d,,,,,,K", "code", "code_of_two_diagnoses"),
    ],
)
def test_a_fault_is_named_by_row_and_column_and_nothing_is_written(tmp_path, row, column, code):
    whole = saved(Image.fromarray(COLOUR), "PNG")
    put(tmp_path, a_png=GREY, c_png=COLOUR, cut_png=whole[: len(whole) // 2], bad_jpg=b"\xff\xd8 no picture")
    put(tmp_path, float_tif=GREY.astype(np.float32))
    Image.fromarray(GREY).save(tmp_path / "two.tif", save_all=True, append_images=[Image.fromarray(GREY)])
    header = "path,patient,diagnosis,study,age,sex,date,modality,code"
    good = "a.png,P1,melanoma,S,40,M,2020-01-01,,K"
    raised = fault(tmp_path, f"{header}\n{good}\n{row}")
    assert raised.code == code
    assert f"row 3, column {column}: " in str(raised)


def test_the_number_of_faulty_rows_is_told(tmp_path):
    put(tmp_path, a_png=GREY)
    raised = fault(tmp_path, "path,patient,diagnosis\nx.png,P1,d\na.png,P1,d\ny.png,P1,d\nz.png,P1,d")
    assert "row 2, column path" in str(raised)
    assert str(raised).endswith("In all, 3 rows have a fault.")


@pytest.mark.parametrize(
    ("text", "code", "names"),
    [
        ("path,patient\na.png,P1", "table_columns", "diagnosis"),
        ("path,patient,diagnosis,Path\na.png,P1,d,a.png", "table_columns", "path twice"),
        ("", "table_columns", "path, patient, diagnosis"),
        ("path,patient,diagnosis\n\n", "table_empty", "one line for each picture"),
        ('path,patient,diagnosis\n"a.png,P1,d', "table_unreadable", "CSV"),
    ],
)
def test_a_table_without_what_is_needed_is_refused(tmp_path, text, code, names):
    raised = fault(tmp_path, text)
    assert raised.code == code
    assert names in str(raised)


def test_a_table_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(MetaDxError, match=r"no\.csv") as raised:
        images_to_dicom(tmp_path / "no.csv", tmp_path / "out")
    assert raised.value.code == "table_missing"


def test_a_folder_with_something_in_it_is_refused_and_an_empty_one_is_filled(tmp_path):
    put(tmp_path, a_png=GREY)
    table = table_of(tmp_path, "path,patient,diagnosis\na.png,P1,d")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    for out in (tmp_path / "full", table):
        with pytest.raises(MetaDxError, match="not an empty folder") as raised:
            images_to_dicom(table, out)
        assert raised.value.code == "output_exists"
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]
    (tmp_path / "empty").mkdir()
    images_to_dicom(table, tmp_path / "empty")
    assert len(written(tmp_path / "empty")) == 1


def test_a_run_that_dies_half_way_leaves_no_half_cohort(tmp_path):
    put(tmp_path, a_png=GREY, b_png=DEEP)
    table = table_of(tmp_path, "path,patient,diagnosis\na.png,P1,d\nb.png,P1,d")
    before = sorted(tmp_path.iterdir())

    def stop(done: int, total: int, message: str = "") -> None:
        if done == 3:  # two checked, one written
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        images_to_dicom(table, tmp_path / "out", progress=stop)
    assert sorted(tmp_path.iterdir()) == before


def test_radiographs_that_were_saved_in_colour_become_grey(tmp_path):
    put(tmp_path, a_png=np.dstack([GREY] * 3), b_jpg=saved(photo().convert("L").convert("RGB")))
    table = table_of(tmp_path, "path,patient,diagnosis,modality\na.png,P1,d,dx\nb.jpg,P2,d,CR")
    images_to_dicom(table, tmp_path / "out")
    datasets = {d.Modality: d for d in written(tmp_path / "out")}
    assert datasets["DX"].SOPClassUID.name == "Digital X-Ray Image Storage - For Presentation"
    assert datasets["CR"].SOPClassUID.name == "Computed Radiography Image Storage"
    assert {d.PhotometricInterpretation for d in datasets.values()} == {"MONOCHROME2"}
    np.testing.assert_array_equal(datasets["DX"].pixel_array, GREY)


@pytest.mark.parametrize("words", ["nevus", "Nävus", "血管腫", "a very long name of a disease"])
def test_a_derived_code_fits_dicom_and_depends_on_the_words_alone(words):
    code = code_of(words)
    assert len(code) <= 16
    assert code.isascii()
    assert code == code_of(f" {words.upper()} ")
    assert code != code_of(words + "s")
