"""Pixels in physical units, held against formulas written here from the standard."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from meta_dx.dicom.pixels import frame_count, physical_pixels, rescale_of
from meta_dx.dicom.rejections import RefusedError, RejectionCode
from tests.dicom.builders import build_instance, picture, write_instance


def bundled(name: str) -> Dataset:
    path = get_testdata_file(name, download=False)
    assert path is not None
    return dcmread(path)


@settings(max_examples=40, deadline=None)
@given(
    stored=hnp.arrays(st.sampled_from([np.int16, np.uint16, np.uint8, np.int8]), (4, 5)),
    slope=st.floats(0.001, 100),
    intercept=st.floats(-5000, 5000),
)
def test_rescale_gives_physical_units(stored, slope, intercept):
    dataset = build_instance(pixels=stored, RescaleSlope=f"{slope:.8g}", RescaleIntercept=f"{intercept:.8g}")
    expected = stored.astype(np.float64) * float(f"{slope:.8g}") + float(f"{intercept:.8g}")
    physical = physical_pixels(dataset)
    assert physical.dtype == np.float32 and physical.shape == (4, 5)
    np.testing.assert_allclose(physical, expected, rtol=1e-6, atol=1e-4)


def test_hounsfield_units_of_a_bundled_ct():
    dataset = bundled("CT_small.dcm")
    raw = np.frombuffer(dataset.PixelData, "<i2").reshape(128, 128)
    assert np.array_equal(physical_pixels(dataset), raw.astype(np.float32) - 1024)


@pytest.mark.parametrize(
    "name",
    "MR_small_RLE MR_small_bigendian MR_small_expb MR_small_implicit MR_small_jp2klossless "
    "MR_small_jpeg_ls_lossless".split(),
)
def test_every_transfer_syntax_gives_the_same_picture(name):
    assert np.array_equal(physical_pixels(bundled(f"{name}.dcm")), physical_pixels(bundled("MR_small.dcm")))


@pytest.mark.parametrize("signed", [False, True])
def test_bits_that_are_not_stored_do_not_count(signed):
    rng = np.random.default_rng(1)
    values = rng.integers(-2048, 2048, (6, 6)) if signed else rng.integers(0, 4096, (6, 6))
    words = (values & 0xFFF) | (rng.integers(0, 16, (6, 6)) << 12)
    dataset = build_instance(
        pixels=words.astype(np.uint16), BitsStored=12, HighBit=11, PixelRepresentation=int(signed)
    )
    assert np.array_equal(physical_pixels(dataset), values)


@settings(max_examples=25, deadline=None)
@given(bits=st.integers(9, 16), signed=st.booleans(), slope=st.floats(0.01, 10), intercept=st.floats(-9, 9))
def test_monochrome1_is_turned_over_within_the_stored_range(bits, signed, slope, intercept):
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    values = np.random.default_rng(bits).integers(low, high + 1, (5, 5))
    options = {
        "pixels": values.astype(np.int16 if signed else np.uint16),
        "BitsStored": bits,
        "HighBit": bits - 1,
        "RescaleSlope": f"{slope:.6g}",
        "RescaleIntercept": f"{intercept:.6g}",
    }
    turned = physical_pixels(build_instance(PhotometricInterpretation="MONOCHROME1", **options))
    # The picture that an exporter would have written as MONOCHROME2.
    mirrored = {**options, "pixels": (low + high - values).astype(options["pixels"].dtype)}
    np.testing.assert_allclose(turned, physical_pixels(build_instance(**mirrored)), rtol=1e-5, atol=1e-3)


def test_monochrome1_makes_a_dark_stored_picture_bright():
    stored = np.zeros((4, 4), np.uint16)
    stored[0, 0] = 4095
    dataset = build_instance(
        pixels=stored, BitsStored=12, HighBit=11, PhotometricInterpretation="MONOCHROME1"
    )
    physical = physical_pixels(dataset)
    assert physical[0, 0] == 0 and (physical.ravel()[1:] == 4095).all()


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_becomes_the_smallest_value_of_the_picture(photometric):
    stored = picture(2, (6, 6)).astype(np.int16) - 1000
    stored[0] = -2000
    dataset = build_instance(
        pixels=stored,
        PhotometricInterpretation=photometric,
        PixelPaddingValue=-2000,
        RescaleSlope="1",
        RescaleIntercept="-24",
    )
    physical = physical_pixels(dataset)
    bare = build_instance(
        pixels=stored, PhotometricInterpretation=photometric, RescaleSlope="1", RescaleIntercept="-24"
    )
    assert np.array_equal(physical[1:], physical_pixels(bare)[1:])
    assert (physical[0] == physical[1:].min()).all()


def test_a_range_of_padding_and_a_picture_of_padding_alone():
    stored = np.array([[0, 1, 2, 50], [60, 3, 70, 80]], np.uint16)
    ranged = build_instance(pixels=stored, PixelPaddingValue=0, PixelPaddingRangeLimit=3)
    assert np.array_equal(physical_pixels(ranged), [[50, 50, 50, 50], [60, 50, 70, 80]])
    alone = build_instance(pixels=np.full((3, 3), 9, np.uint16), PixelPaddingValue=9)
    assert (physical_pixels(alone) == 0).all()


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("intercept", "expected"), [(-1024, 0), (500, 500), (-70000, 65535 - 70000)])
def test_a_picture_of_padding_alone_is_zero_or_the_nearest_that_its_bits_can_hold(
    photometric, intercept, expected
):
    stored = np.full((3, 3), 63488, np.uint16)
    dataset = build_instance(
        pixels=stored,
        PixelPaddingValue=63488,
        PhotometricInterpretation=photometric,
        RescaleSlope=1,
        RescaleIntercept=intercept,
    )
    assert (physical_pixels(dataset) == expected).all()


@pytest.mark.parametrize(
    "empty", [{}, {"RescaleSlope": None, "RescaleIntercept": None}, {"RescaleType": "HU"}]
)
def test_an_empty_rescale_of_a_frame_does_not_hide_the_one_of_all(empty):
    def group(**values):
        item, of = Dataset(), Dataset()
        for keyword, value in values.items():
            setattr(item, keyword, value)
        of.PixelValueTransformationSequence = Sequence([item])
        return of

    dataset = build_instance(pixels=picture(3, (3, 4, 4)))
    dataset.SharedFunctionalGroupsSequence = Sequence([group(RescaleSlope=2, RescaleIntercept=-1024)])
    own = group(RescaleIntercept=-7)
    dataset.PerFrameFunctionalGroupsSequence = Sequence([group(**empty), own, Dataset()])
    assert [rescale_of(dataset, frame) for frame in range(3)] == [(2, -1024), (1, -7), (2, -1024)]
    del dataset.SharedFunctionalGroupsSequence
    dataset.RescaleIntercept = -5
    assert rescale_of(dataset, 0) == (1, -5)


def test_padding_written_without_its_sign_is_understood(tmp_path):
    stored = np.array([[-2000, 5], [7, 9]], np.int16)

    def unsigned(dataset):
        dataset.add_new("PixelPaddingValue", "US", 65536 - 2000)

    path = write_instance(tmp_path, pixels=stored, edit=unsigned)
    assert np.array_equal(physical_pixels(dcmread(path)), [[5, 5], [7, 9]])


def _lut(entries: list[int], first: int) -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, 16])
    item.ModalityLUTType = "US"
    item.add_new("LUTData", "US", entries)
    return Sequence([item])


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_the_modality_lut_is_applied(photometric):
    table = [5, 40, 100, 900, 30000]
    stored = np.array([[0, 3, 4], [5, 7, 200]], np.uint16)
    dataset = build_instance(
        pixels=stored, ModalityLUTSequence=_lut(table, 3), PhotometricInterpretation=photometric
    )
    expected = np.array([[5, 5, 40], [100, 30000, 30000]], np.float32)
    assert np.array_equal(apply_modality_lut(stored, dataset), expected)  # pydicom agrees
    if photometric == "MONOCHROME1":
        expected = 5 + 30000 - expected
    assert np.array_equal(physical_pixels(dataset), expected)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("deep", [False, True])
def test_palettes_become_rgb_from_0_to_255(tmp_path, deep, syntax):
    rng = np.random.default_rng(3)
    tables = rng.integers(0, 65536 if deep else 256, (3, 40))
    stored = rng.integers(0, 60, (5, 6)).astype(np.uint8)

    def add_palette(dataset):
        dtype = ("<" if syntax == ExplicitVRLittleEndian else ">") + "u2"
        for colour, table in zip(("Red", "Green", "Blue"), tables, strict=True):
            dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [40, 10, 16])
            dataset.add_new(f"{colour}PaletteColorLookupTableData", "OW", table.astype(dtype).tobytes())

    path = write_instance(
        tmp_path,
        pixels=stored,
        PhotometricInterpretation="PALETTE COLOR",
        edit=add_palette,
        transfer_syntax=syntax,
    )
    index = np.clip(stored.astype(int) - 10, 0, 39)
    expected = np.moveaxis(tables[:, index], 0, -1) * (255 / 65535 if deep else 1.0)
    physical = physical_pixels(dcmread(path))
    assert physical.shape == (5, 6, 3)
    np.testing.assert_allclose(physical, expected, rtol=1e-6)


def test_the_bundled_palette_agrees_with_pydicom():
    dataset = bundled("examples_palette.dcm")
    theirs = apply_color_lut(dataset.pixel_array, dataset)
    assert theirs.dtype == np.uint16
    np.testing.assert_allclose(physical_pixels(dataset), theirs[..., :3] * (255 / 65535), rtol=1e-5)


def test_an_eight_bit_packed_palette_and_one_that_is_too_short():
    table = np.arange(256, dtype=np.uint8)

    def dataset_with(length):
        dataset = build_instance(pixels=picture(1, (4, 4), 8), PhotometricInterpretation="PALETTE COLOR")
        for colour in ("Red", "Green", "Blue"):
            dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [256, 0, 8])
            dataset.add_new(f"{colour}PaletteColorLookupTableData", "OW", table[:length].tobytes())
        return dataset

    packed = dataset_with(256)
    assert np.array_equal(physical_pixels(packed), np.repeat(packed.pixel_array[..., None], 3, axis=-1))
    with pytest.raises(RefusedError) as refusal:
        physical_pixels(dataset_with(100))
    assert refusal.value.refusal.code is RejectionCode.PIXEL_DESCRIPTION


def test_ybr_becomes_rgb_by_the_formula_of_the_standard():
    ybr = picture(4, (7, 9, 3), 8)
    y, cb, cr = np.moveaxis(ybr.astype(np.float64), -1, 0)
    rgb = np.stack(  # PS3.3 C.7.6.3.1.2
        [
            y + 1.402 * (cr - 128),
            y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128),
            y + 1.772 * (cb - 128),
        ],
        axis=-1,
    )
    dataset = build_instance(pixels=ybr, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_allclose(physical_pixels(dataset), np.clip(rgb, 0, 255), atol=1.01)


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("depth", [8, 16])
def test_rgb_is_scaled_to_255_whatever_its_depth_and_order(depth, planar):
    rgb = picture(5, (6, 8, 3), depth)

    def reorder(dataset):
        dataset.PlanarConfiguration = planar
        if planar:
            dataset.PixelData = np.moveaxis(rgb, -1, 0).astype(f"<u{depth // 8}").tobytes()

    dataset = build_instance(pixels=rgb, edit=reorder)
    np.testing.assert_allclose(physical_pixels(dataset), rgb * (255 / ((1 << depth) - 1)), rtol=1e-6)


@pytest.mark.parametrize("name", ["SC_rgb_rle", "SC_rgb_gdcm_KY", "SC_rgb_jpeg_gdcm"])
def test_lossless_colour_files_show_the_same_picture(name):
    # All were made from one picture of ten colour bars; the corner bar is pure red.
    physical = physical_pixels(bundled(f"{name}.dcm"))
    assert physical.shape == (100, 100, 3)
    assert np.array_equal(physical[5, 50], [255, 0, 0])


@pytest.mark.parametrize("name", ["SC_rgb_dcmtk_+eb+cy+np", "SC_rgb_jpeg_dcmtk", "SC_rgb_jpeg_lossy_gdcm"])
def test_lossy_ybr_files_show_nearly_the_same_picture(name):
    lossless = physical_pixels(bundled("SC_rgb_rle.dcm"))
    assert np.abs(physical_pixels(bundled(f"{name}.dcm")) - lossless).mean() < 6


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless])
def test_each_frame_is_its_own(syntax):
    stored = picture(6, (3, 34, 36))
    dataset = build_instance(pixels=stored, transfer_syntax=syntax)
    assert frame_count(dataset) == 3
    for frame in range(3):
        assert np.array_equal(physical_pixels(dataset, frame), stored[frame])
    with pytest.raises(IndexError):
        physical_pixels(dataset, 3)
    with pytest.raises(IndexError):
        physical_pixels(dataset, -1)


def _group(slope: float, intercept: float) -> Dataset:
    values, group = Dataset(), Dataset()
    values.RescaleSlope, values.RescaleIntercept = slope, intercept
    group.PixelValueTransformationSequence = Sequence([values])
    return group


def test_the_rescale_of_a_frame_wins_over_the_shared_and_the_top_one():
    stored = picture(7, (2, 5, 5))
    options = {"pixels": stored, "RescaleSlope": 7, "RescaleIntercept": 7}
    shared = build_instance(**options, SharedFunctionalGroupsSequence=Sequence([_group(3, 1)]))
    assert np.array_equal(physical_pixels(shared, 1), stored[1] * 3.0 + 1)
    both = build_instance(
        **options,
        SharedFunctionalGroupsSequence=Sequence([_group(3, 1)]),
        PerFrameFunctionalGroupsSequence=Sequence([_group(2, 0), _group(4, -5)]),
    )
    assert np.array_equal(physical_pixels(both, 0), stored[0] * 2.0)
    assert np.array_equal(physical_pixels(both, 1), stored[1] * 4.0 - 5)
    assert rescale_of(both, 1) == (4.0, -5.0)
    assert rescale_of(build_instance()) == (1.0, 0.0)


def test_pixels_that_cannot_be_decoded_are_refused_with_a_code():
    wrong = build_instance(PhotometricInterpretation="HSV")
    with pytest.raises(RefusedError) as refusal:
        physical_pixels(wrong)
    assert refusal.value.refusal.code is RejectionCode.UNSUPPORTED_PHOTOMETRIC
