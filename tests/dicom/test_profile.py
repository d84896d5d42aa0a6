"""PS3.15, Table E.1-1: what it asks for is done, and nothing that the home keeps goes against it."""

import pytest
from pydicom.datadict import DicomDictionary, RepeatersDictionary, tag_for_keyword

from meta_dx.dicom.deidentification import KEPT_ATTRIBUTES, KEPT_SEQUENCES
from meta_dx.dicom.profile import Action, ProfileOptions, action_of, method_codes, table

DEFAULT = ProfileOptions()
NOTHING = ProfileOptions(age_and_sex=False, dates=False, times=False, device=False, descriptors=False)
STAYS = (Action.KEEP, Action.CLEAN, Action.UID, Action.SHIFT)


def action(keyword: str, options: ProfileOptions = DEFAULT) -> Action:
    return action_of(int(tag_for_keyword(keyword) or 0), options)


@pytest.mark.parametrize("keyword", [*KEPT_ATTRIBUTES, *KEPT_SEQUENCES])
def test_what_the_home_keeps_is_permitted_by_the_profile(keyword):
    assert action(keyword) in (Action.KEEP, Action.CLEAN, Action.UID)


def test_an_attribute_that_is_not_permitted_would_be_told():
    for keyword in ("PatientName", "DeviceSerialNumber", "StationName", "StudyTime", "InstitutionName"):
        assert action(keyword) not in (Action.KEEP, Action.CLEAN, Action.UID)


def test_the_uids_of_the_home_are_replaced_where_the_table_says_so():
    for keyword in ("FrameOfReferenceUID", "DimensionOrganizationUID", "SOPInstanceUID", "StudyInstanceUID"):
        assert action(keyword) is Action.UID


@pytest.mark.parametrize("version", ["dicomfields_2023", "dicomfields_2024b"])
def test_what_an_earlier_table_removes_does_not_stay(version):
    from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector

    earlier = dicom_anonymization_database_selector(version)
    gone = {Action.REMOVE, Action.EMPTY, Action.DUMMY}
    for category, expected in (("X_TAGS", gone), ("Z_TAGS", gone), ("D_TAGS", {*gone, Action.UID})):
        tags = [(tag[0] << 16) | tag[1] for tag in earlier[category] if len(tag) == 2]
        assert len(tags) >= 30
        assert {action_of(tag, NOTHING) for tag in tags} <= expected


def test_every_option_retains_what_it_names_and_nothing_else():
    retained = {
        "age_and_sex": {"PatientAge", "PatientSex"},
        "device": {"Manufacturer", "ManufacturerModelName"},
        "dates": None,
        "descriptors": None,
    }
    for option, expected in retained.items():
        options = ProfileOptions(**{**vars(NOTHING), option: True})
        changed = {
            entry[4]: entry[0]
            for tag, entry in DicomDictionary.items()
            if action_of(tag, options) is not action_of(tag, NOTHING)
        }
        if expected is not None:
            assert set(changed) == expected
        elif option == "dates":
            assert set(changed.values()) == {"DA", "DT"} and "PatientBirthDate" not in changed
        else:
            assert all(
                "Description" in name or name in ("ProtocolName", "ContrastBolusAgent") for name in changed
            )
    assert action("StudyTime", ProfileOptions(times=True)) is Action.KEEP
    assert action("StudyTime", ProfileOptions(dates=False, times=True)) is Action.EMPTY


def test_of_the_patient_nothing_stays_but_age_and_sex():
    stays = {
        keyword
        for tag, (_, _, _, _, keyword) in DicomDictionary.items()
        if tag >> 16 == 0x0010
        and action_of(tag, ProfileOptions()) in (Action.KEEP, Action.CLEAN, Action.SHIFT)
    }
    assert stays == {"PatientAge", "PatientSex"}


def test_nothing_that_can_hold_any_bytes_stays_unseen():
    words = {"AE", "PN", "UR", "UN", "OB"}
    for tag, (vr, *_, keyword) in DicomDictionary.items():
        if words & set(vr.split(" or ")) and action_of(tag, DEFAULT) is Action.KEEP:
            assert "Lookup" in keyword or keyword == "PixelData", keyword


def test_dates_times_and_uids_that_the_table_does_not_name_are_treated_like_those_that_it_names():
    for tag, (vr, *_) in DicomDictionary.items():
        found = action_of(tag, DEFAULT)
        if vr in ("DA", "DT") and tag >> 16 != 0x0010:
            assert found in (Action.SHIFT, Action.REMOVE)
        if vr == "TM" or (vr == "DA" and tag >> 16 == 0x0010):
            assert found in (Action.EMPTY, Action.DUMMY, Action.REMOVE)
        if vr == "UI":
            assert found in (Action.UID, Action.REMOVE)


@pytest.mark.parametrize(
    "tag", [0x00090010, 0x00091001, 0x00080000, 0x50003000, 0x60000022, 0x60023000, 0x00081234, 0xFFFCFFFC]
)
def test_private_unknown_overlay_and_padding_elements_go(tag):
    assert action_of(tag, DEFAULT) is Action.REMOVE


def test_every_repeating_group_goes():
    for mask in RepeatersDictionary:
        if mask.startswith(("50", "60")):
            assert action_of(int(mask.replace("x", "0"), 16), DEFAULT) is Action.REMOVE


def test_combined_actions_keep_the_object_valid():
    assert table()[0x00080023] is Action.DUMMY  # ContentDate, Z/D
    assert table()[0x00080022] is Action.EMPTY  # AcquisitionDate, X/Z
    assert table()[0x00181000] is Action.DUMMY  # DeviceSerialNumber, X/Z/D
    assert action("ReferencedImageSequence") is Action.UID  # X/Z/U*


def test_the_codes_say_what_was_done():
    assert [code for code, _ in method_codes(NOTHING)] == ["113100"]
    assert [code for code, _ in method_codes(DEFAULT)] == ["113100", "113105", "113107", "113108"]
