"""Near-duplicates: copies are found, different patients stay apart, forms and blank pictures join nobody."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.fft import dctn

from meta_dx.cohort import duplicates
from meta_dx.cohort.copies import AGREEMENT
from meta_dx.cohort.duplicates import near_duplicate_groups
from tests.cohort.drawn_scenes import Scene
from tests.cohort.image_tables import photo

Picture = npt.NDArray[np.uint8]


def groups_of(pictures: list[Picture], patients: list[str] | None = None) -> dict[str, str]:
    names = patients or [f"P{n:03d}" for n in range(len(pictures))]
    return near_duplicate_groups(np.stack(pictures)[:, None], names)[0]


def jpeg(picture: Picture) -> Picture:
    stream = BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=40)
    return np.asarray(Image.open(stream))


COPIES = {
    "the same": lambda p: p,
    "compressed": jpeg,
    "brighter and flatter": lambda p: (p * 0.6 + 60).astype(np.uint8),
    "gamma": lambda p: (255 * (p / 255.0) ** 1.4).astype(np.uint8),
    "noisy": lambda p: (p + np.random.default_rng(9).normal(0, 6, p.shape)).clip(0, 255).astype(np.uint8),
    "marked": lambda p: np.where(np.indices(p.shape).max(0) < 4, 255, p).astype(np.uint8),
    "smaller and back": lambda p: np.asarray(Image.fromarray(p).resize((40, 40)).resize((64, 64))),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_found(kind: str) -> None:
    for seed in range(20):
        picture = photo(seed)
        assert groups_of([picture, photo(seed + 1000), COPIES[kind](picture)])["P002"] == "P000"


def smooth(seed: int, cells: int = 4, side: int = 72) -> npt.NDArray[np.float32]:
    """Draw a smooth picture from 0 to 1, larger than needed so that it can be cut out shifted."""
    coarse = np.random.default_rng(seed).normal(size=(cells, cells)).astype(np.float32)
    drawn = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
    return (drawn - drawn.min()) / np.ptp(drawn)


def test_shifted_copies_are_found() -> None:
    drawn = [(175 * smooth(seed) + 80 * smooth(seed + 100, 24)).astype(np.uint8) for seed in range(20)]
    joined = [set(groups_of([each[4:68, 4:68], each[6:70, 4:68]]).values()) == {"P000"} for each in drawn]
    assert all(joined)


def test_patients_with_the_same_anatomy_stay_apart() -> None:
    anatomy = smooth(1, 6, 64)
    pictures = [(150 * anatomy + 50 * smooth(seed, 12, 64)).astype(np.uint8) for seed in range(40)]
    hashes = duplicates.perceptual_hashes(duplicates._thumbnails(np.stack(pictures)[:, None]))
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None])[np.triu_indices(40, 1)]
    assert (apart <= duplicates.HASH_DISTANCE).sum() > 20  # the hash alone would join them
    assert all(patient == group for patient, group in groups_of(pictures).items())


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_different_pictures_stay_apart(seed: int) -> None:
    pictures = [photo(seed + n) for n in range(60)]
    assert all(patient == group for patient, group in groups_of(pictures).items())


def test_chains_join_and_bear_the_smallest_name_whatever_the_order() -> None:
    a, b = photo(1), photo(2)
    pictures, names = [a, a, b, b, photo(3)], ["z", "m", "m", "c", "d"]
    expected = {"c": "c", "d": "d", "m": "c", "z": "c"}
    assert groups_of(pictures, names) == expected
    assert groups_of(pictures[::-1], names[::-1]) == expected


def test_pairs_say_who_and_why_and_leave_out_the_same_patient() -> None:
    a, b = photo(1), photo(2)
    groups, pairs = near_duplicate_groups(np.stack([a, b, a, b])[:, None], ["p", "q", "r", "q"])
    assert groups == {"p": "p", "q": "q", "r": "p"}
    assert pairs[["first", "second", "first_patient", "second_patient"]].to_numpy().tolist() == [
        [0, 2, "p", "r"]
    ]
    assert pairs["reason"].tolist() == ["hash: 0 of 63 bits differ, correlation 1.000"]


def test_the_reason_names_the_look_that_found_the_pair() -> None:
    scene, other = Scene(1).draw(), Scene(2)
    pictures = [scene, other.draw(), np.fliplr(scene), scene, other.draw(zoom=0.85)]
    groups, pairs = near_duplicate_groups(np.stack(pictures)[:, None], list("abcde"))
    assert groups == {"a": "a", "b": "b", "c": "a", "d": "a", "e": "b"}
    looks = {(row.first, row.second): row.reason.split(",")[0] for row in pairs.itertuples()}
    assert looks == {
        (0, 2): "embedding: mirrored",
        (0, 3): "hash: 0 of 63 bits differ",
        (1, 4): "embedding: as it is",
        (2, 3): "embedding: mirrored",
    }
    mirrored = pairs[pairs["reason"].str.contains("mirrored")]
    assert (mirrored["hash_distance"] > duplicates.HASH_DISTANCE).all()
    assert (mirrored["correlation"] >= AGREEMENT).all()


def test_a_form_that_is_turned_and_cut_for_many_patients_joins_nobody() -> None:
    form, other = Scene(3), Scene(4)
    turned = [np.rot90(form.draw(zoom=1 - 0.01 * n), n) for n in range(duplicates.MOST_PATIENTS + 2)]
    pictures = [*turned, other.draw(), np.fliplr(other.draw())]
    groups = groups_of(pictures)
    assert groups.pop("P011") == "P010"
    assert all(patient == group for patient, group in groups.items())
    few = groups_of([*turned[: duplicates.MOST_PATIENTS], other.draw()])
    assert set(few.values()) == {"P000", "P008"}


@pytest.mark.parametrize(
    "name",
    [
        "DUPLICATES_VERSION",
        "HASH_DISTANCE",
        "CORRELATION",
        "NEIGHBOURS",
        "AGREEMENT",
        "FLAT",
        "MOST_PATIENTS",
    ],
)
def test_another_rule_has_another_version(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = duplicates.rule_version()
    assert before == duplicates.rule_version()
    monkeypatch.setattr(duplicates, name, getattr(duplicates, name) + 1)
    assert duplicates.rule_version() != before


def test_blank_and_nearly_blank_pictures_join_nobody() -> None:
    random = np.random.default_rng(0)
    blank = [np.full((64, 64), level, dtype=np.uint8) for level in (0, 0, 128, 255)]
    faint = [(100 + random.normal(0, 2, (64, 64))).astype(np.uint8) for _ in range(4)]
    assert all(patient == group for patient, group in groups_of(blank + faint).items())


def test_a_form_that_many_patients_share_joins_nobody() -> None:
    forms = [(photo(1) * 0.98 + n % 3).astype(np.uint8) for n in range(duplicates.MOST_PATIENTS + 2)]
    assert all(patient == group for patient, group in groups_of([*forms, photo(5)]).items())
    few = groups_of([*forms[: duplicates.MOST_PATIENTS], photo(5)])
    assert set(few.values()) == {"P000", "P008"}


def test_colour_and_any_size_work_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (40, 3, 8, 8)).astype(np.uint8).repeat(4, 2).repeat(4, 3)
    pictures[30] = pictures[3]
    names = [f"P{n:03d}" for n in range(40)]
    whole = near_duplicate_groups(pictures, names)
    monkeypatch.setattr(duplicates, "_ROWS", 7)
    monkeypatch.setattr(duplicates, "_BLOCK", 1)
    parts = near_duplicate_groups(pictures, names)
    assert whole[0] == parts[0]
    assert whole[0]["P030"] == "P003"
    assert whole[1].equals(parts[1])


def test_the_hash_is_the_signs_of_the_lowest_frequencies_of_a_cosine_transform() -> None:
    thumbnails = np.stack([photo(n, side=32) for n in range(5)])
    for picture, number in zip(thumbnails, duplicates.perceptual_hashes(thumbnails), strict=True):
        low = dctn(picture.astype(float))[:8, :8].ravel()[1:]
        assert np.unpackbits(number[None].view(np.uint8))[:63].tolist() == (low > np.median(low)).tolist()


def test_no_picture_gives_no_group() -> None:
    groups, pairs = near_duplicate_groups(np.zeros((0, 1, 64, 64), dtype=np.uint8), [])
    assert groups == {}
    assert len(pairs) == 0
