"""What the stored object may hold: planted tokens must not be found in any of its bytes."""

from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from meta_dx.dicom.deidentification import KEPT_ATTRIBUTES, KEPT_SEQUENCES
from meta_dx.dicom.identity import Surrogates
from meta_dx.dicom.reading import AcceptedInstance, read_instance
from tests.dicom.builders import picture, uid_of, write_instance

SURROGATES = Surrogates(b"a key of the test, 32 bytes long")
SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless]
TOKEN = "QZTOKENQZ"  # noqa: S105

TEXTS = {
    "LO": ["InstitutionName", "StudyDescription", "PatientComments", "DeviceSerialNumber"],
    "SH": ["StationName", "StudyID"],
    "PN": ["PatientName", "ReferringPhysicianName", "OperatorsName"],
    "LT": ["AdditionalPatientHistory", "PatientComments"],
    "ST": ["InstitutionAddress"],
    "UT": ["TextValue"],
    "UC": ["StrainDescription"],
    "UR": ["RetrieveURL"],
    "AE": ["RetrieveAETitle"],
    "CS": ["RequestedProcedurePriority", "Modality", "BodyPartExamined", "ViewPosition", "ImageType"],
    "DA": ["StudyDate", "PatientBirthDate", "AcquisitionDate"],
    "TM": ["StudyTime"],
    "DT": ["AcquisitionDateTime"],
    "UI": ["StudyInstanceUID", "FrameOfReferenceUID", "DeviceUID"],
}


def kept(path) -> Dataset:
    result = read_instance(path, SURROGATES)
    assert isinstance(result, AcceptedInstance), result
    return dcmread(BytesIO(result.object))


def found_in(path, tokens=(TOKEN,)) -> list[str]:
    result = read_instance(path, SURROGATES)
    assert isinstance(result, AcceptedInstance), result
    bytes_kept = result.object
    if dcmread(BytesIO(result.object)).file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
        target = BytesIO()
        dataset = dcmread(BytesIO(result.object))
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.save_as(target)
        bytes_kept += target.getvalue()
    everything = bytes_kept + repr(result.row).encode()
    return [t for t in tokens if t.encode() in everything or t.encode("utf-16-le") in everything]


@pytest.mark.parametrize("syntax", [*SYNTAXES, DeflatedExplicitVRLittleEndian])
def test_no_token_that_was_planted_in_any_representation_is_kept(tmp_path, syntax):
    def plant(dataset: Dataset) -> None:
        for names in TEXTS.values():
            for name in names:
                if name not in {"Modality", "BodyPartExamined", "ViewPosition", "ImageType"}:
                    setattr(dataset, name, TOKEN)
        dataset.PatientID = dataset.AccessionNumber = TOKEN
        dataset.BodyPartExamined = f"arm of mr. {TOKEN}, see letter"
        dataset.ViewPosition = f"{TOKEN}\x0bv"
        dataset.EncapsulatedDocument = TOKEN.encode() + b"\0"
        dataset.add_new((0x0009, 0x0010), "LO", TOKEN)
        dataset.add_new((0x0009, 0x1001), "UN", TOKEN.encode() + b"\0")
        dataset.add_new((0x6000, 0x3000), "OW", TOKEN.encode() + b"\0")
        dataset.add_new((0x6000, 0x0022), "LO", TOKEN)
        dataset.add_new((0xFFFC, 0xFFFC), "OB", TOKEN.encode() + b"\0")
        dataset.DataSetTrailingPadding = TOKEN.encode() + b"\0"

    path = write_instance(tmp_path, edit=plant, transfer_syntax=syntax)
    assert found_in(path) == []


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_no_token_that_was_planted_in_a_sequence_is_kept(tmp_path, syntax):
    def item(depth: int) -> Dataset:
        dataset = Dataset()
        dataset.PatientName = dataset.PatientComments = dataset.StudyDescription = TOKEN
        dataset.FrameOfReferenceUID = dataset.ReferencedSOPInstanceUID = TOKEN
        dataset.ImageComments = dataset.FrameComments = dataset.LUTExplanation = TOKEN
        dataset.add_new((0x0009, 0x0010), "LO", TOKEN)
        dataset.add_new((0x0009, 0x1001), "LO", TOKEN)
        dataset.RescaleType = f"{TOKEN.lower()}; x"
        dataset.PixelSpacing = ["0.5", "0.25"]
        if depth:
            for name in ("FrameContentSequence", "PixelMeasuresSequence", "ReferencedImageSequence"):
                setattr(dataset, name, Sequence([item(depth - 1)]))
        return dataset

    path = write_instance(
        tmp_path,
        transfer_syntax=syntax,
        RequestAttributesSequence=Sequence([item(2)]),
        SharedFunctionalGroupsSequence=Sequence([item(3)]),
        PerFrameFunctionalGroupsSequence=Sequence([item(1)]),
        VOILUTSequence=Sequence([item(1)]),
    )
    assert found_in(path) == []
    shared = kept(path).SharedFunctionalGroupsSequence[0]
    assert shared.FrameOfReferenceUID == SURROGATES.uid(TOKEN)
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [0.5, 0.25]
    assert "ReferencedImageSequence" not in shared


@pytest.mark.parametrize("syntax", SYNTAXES[::2])
def test_text_under_the_tag_of_a_number_is_not_kept(tmp_path, syntax):
    def plant(dataset: Dataset) -> None:
        dataset.add_new("SliceThickness", "LO", TOKEN)
        dataset.add_new("KVP", "DS", "")
        dataset["KVP"]._value = TOKEN  # a decimal string that is no number
        dataset.add_new("PixelPaddingValue", "OB", TOKEN.encode() + b"\0")
        dataset.add_new("SmallestImagePixelValue", "UT", TOKEN)

    assert found_in(write_instance(tmp_path, edit=plant, transfer_syntax=syntax)) == []


def test_the_preamble_is_not_kept(tmp_path):
    path = write_instance(tmp_path)
    data = path.read_bytes()
    path.write_bytes(TOKEN.encode() + data[len(TOKEN) :])
    assert found_in(path) == []


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_what_a_learner_needs_is_kept(tmp_path, syntax):
    values = {
        "PixelSpacing": ["0.123456789012", "0.5"],
        "ImagePositionPatient": ["-1.5", "2", "3e1"],
        "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
        "SliceThickness": "2.5",
        "WindowCenter": ["40", "300"],
        "WindowWidth": ["400", "1500"],
        "RescaleSlope": "0.5",
        "RescaleIntercept": "-1024",
        "RescaleType": "HU",
        "KVP": "120",
        "PixelPaddingValue": 7,
        "MagneticFieldStrength": "1.5",
        "BurnedInAnnotation": "NO",
        "SpacingBetweenSlices": "3",
        "SeriesNumber": "4",
    }
    path = write_instance(tmp_path, transfer_syntax=syntax, **values)
    original, dataset = dcmread(path), kept(path)
    for name in [*values, "Modality", "BodyPartExamined", "ViewPosition", "ImageType", "PatientSex"]:
        assert dataset[name].value == original[name].value, name
        if syntax != ImplicitVRLittleEndian:
            assert dataset[name].VR == original[name].VR, name


def test_a_number_that_is_spread_over_the_values_of_an_attribute_stays_behind(tmp_path):
    path = write_instance(tmp_path, ImageType=["ORIGINAL", "PRIMARY", "P123", "456"])
    assert kept(path).ImageType == ["ORIGINAL", "PRIMARY"]
    result = read_instance(path, SURROGATES)
    assert isinstance(result, AcceptedInstance) and result.row["image_type"] == "ORIGINAL\\PRIMARY"


def test_identities_are_surrogates_and_the_file_says_what_was_done(tmp_path):
    path = write_instance(tmp_path, patient="P1", study="S", instance="I", FrameOfReferenceUID="1.2.3")
    dataset = kept(path)
    assert dataset.StudyInstanceUID == SURROGATES.uid(uid_of("S"))
    assert (
        dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID == SURROGATES.uid(uid_of("I"))
    )
    assert dataset.FrameOfReferenceUID == SURROGATES.uid("1.2.3")
    assert dataset.PatientID == SURROGATES.patient("P1")
    assert dataset.AccessionNumber == SURROGATES.accession("ACC S")
    assert dataset.SOPClassUID == dcmread(path).SOPClassUID
    assert dataset.StudyDate < "20240229" and dataset.PatientAge == "054Y"
    assert dataset.PatientIdentityRemoved == "YES" and dataset.PatientBirthDate == ""
    assert dataset.LongitudinalTemporalInformationModified == "MODIFIED"


def test_a_private_sop_class_is_a_surrogate(tmp_path):
    dataset = kept(write_instance(tmp_path, SOPClassUID="1.3.12.2.1107.5.9.1"))
    assert dataset.SOPClassUID == SURROGATES.uid("1.3.12.2.1107.5.9.1")


@pytest.mark.parametrize("rest", [TOKEN, "19591103", "5.1.4.20240131101500"])
def test_a_uid_that_only_begins_like_the_standard_is_a_surrogate(tmp_path, rest):
    planted = f"1.2.840.10008.{rest}"
    dataset = kept(write_instance(tmp_path, FrameOfReferenceUID=planted))
    assert dataset.FrameOfReferenceUID == SURROGATES.uid(planted)


def test_makers_with_letters_of_any_alphabet_are_kept_as_utf8(tmp_path):
    def edit(dataset: Dataset) -> None:
        dataset.SpecificCharacterSet = "ISO_IR 100"
        dataset.Manufacturer = "Médical Écho"

    dataset = kept(write_instance(tmp_path, edit=edit))
    assert dataset.Manufacturer == "Médical Écho" and dataset.SpecificCharacterSet == "ISO_IR 192"


def test_long_tables_survive_in_every_encoding(tmp_path):
    table = picture(3, (40_000,), 16)
    for syntax in SYNTAXES[:3]:
        item = Dataset()
        item.add_new("LUTDescriptor", "US", [40_000, 0, 16])
        dtype = ">u2" if syntax == ExplicitVRBigEndian else "<u2"
        item.add_new("LUTData", "OW", table.astype(dtype).tobytes())
        path = write_instance(tmp_path, transfer_syntax=syntax, ModalityLUTSequence=Sequence([item]))
        lut = kept(path).ModalityLUTSequence[0]
        assert list(lut.LUTDescriptor) == [40_000, 0, 16]
        assert np.array_equal(np.frombuffer(lut.LUTData, dtype), table)


def test_nothing_that_identifies_is_on_the_lists():
    listed = {*KEPT_ATTRIBUTES, *KEPT_SEQUENCES}
    words = ("Name", "Date", "Time", "Comment", "Description", "Address", "Serial", "Physician", "Private")
    harmless = {"RepetitionTime", "EchoTime", "InversionTime", "ExposureTime"}
    assert not [name for name in listed - harmless if any(word in name for word in words)]
