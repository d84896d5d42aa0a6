"""The image store: which images count, that each is prepared once, and what a killed run leaves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meta_dx.cohort import images as module
from meta_dx.cohort import rendering
from meta_dx.cohort.images import ImageStore, ShardedImages, select_images
from meta_dx.cohort.preprocessing import ImageOptions, preprocess
from meta_dx.home import Home
from tests.cohort.image_tables import HandMadeCatalog, photo

OPTIONS = ImageOptions(size=16, max_images=3)


@pytest.fixture
def catalog(tmp_path: Path) -> HandMadeCatalog:
    return HandMadeCatalog(Home.open(tmp_path / "home"))


def build(catalog: HandMadeCatalog, options: ImageOptions = OPTIONS, **more: Any) -> ImageStore:
    return ImageStore.build(catalog.home, catalog, options, **more)  # type: ignore[arg-type]


def frames_of(series: list[int], positions: bool = False) -> pd.DataFrame:
    """Return one study with series of these lengths, in shuffled order."""
    rows = [
        {
            "study": "S", "series": f"s{n}", "instance": f"{n}/{k}", "instance_number": k, "frame": 0,
            "position": float(-k) if positions else np.nan,
            "modality": "CT", "view": None, "body_part": "HEAD",
        }
        for n, length in enumerate(series)
        for k in range(length)
    ]  # fmt: skip
    return pd.DataFrame(rows).sample(frac=1, random_state=len(rows))


def chosen(frames: pd.DataFrame, most: int) -> list[str]:
    return select_images(frames, ImageOptions(max_images=most))["instance"].tolist()


def test_one_image_is_the_middle_and_several_are_spread() -> None:
    assert chosen(frames_of([11]), 1) == ["0/5"]
    assert chosen(frames_of([12]), 3) == ["0/2", "0/6", "0/10"]
    assert chosen(frames_of([3]), 4) == ["0/0", "0/1", "0/2"]


def test_slices_are_ordered_by_position_before_number() -> None:
    assert chosen(frames_of([4], positions=True), 2) == ["0/2", "0/0"]


def test_series_share_fairly_and_a_short_one_gives_what_it_has() -> None:
    assert chosen(frames_of([1, 100, 100]), 4) == ["0/0", "1/25", "1/75", "2/50"]
    assert chosen(frames_of([5] * 6), 3) == ["1/2", "3/2", "5/2"]


def test_filters_ignore_case_and_missing_values() -> None:
    frames = frames_of([2])
    assert len(select_images(frames, ImageOptions(modalities=("ct",), body_parts=("Head",)))) == 2
    assert len(select_images(frames, ImageOptions(views=("PA",)))) == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 7), st.integers(0, 100))
def test_the_choice_is_full_stable_and_independent_of_the_order(
    series: list[int], most: int, seed: int
) -> None:
    frames = frames_of(series)
    options = ImageOptions(max_images=most)
    first = select_images(frames, options)
    assert len(first) == min(most, sum(series))
    assert first["series"].nunique() == min(most, len(series))
    pd.testing.assert_frame_equal(select_images(first, options), first)
    pd.testing.assert_frame_equal(select_images(frames.sample(frac=1, random_state=seed), options), first)


def test_pictures_stand_in_the_order_of_the_index(catalog: HandMadeCatalog) -> None:
    pictures = {f"S{n}": photo(n) for n in range(5)}
    for study, pixels in reversed(pictures.items()):
        catalog.add(pixels, study)
    store = build(catalog)
    assert store.shape == store.images.shape == (5, 1, 16, 16)
    assert store.index["row"].tolist() == list(range(5))
    for row, study in zip(store.index["row"], store.index["study"], strict=True):
        expected = preprocess(pictures[study].astype(np.float32), OPTIONS)
        np.testing.assert_array_equal(store.images[row], expected)
    np.testing.assert_array_equal(store.load(), np.asarray(store.images))


def test_of_a_film_a_few_frames_count_each_as_an_image(catalog: HandMadeCatalog) -> None:
    film = np.stack([photo(n) for n in range(10)])
    catalog.add(film, "S0")
    store = build(catalog)
    assert store.index["frame"].tolist() == [1, 5, 8]
    np.testing.assert_array_equal(store.images[2], preprocess(film[8].astype(np.float32), OPTIONS))


def test_only_what_is_new_is_prepared(catalog: HandMadeCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    rendered = rendering.Renderer.rendered
    monkeypatch.setattr(
        rendering.Renderer, "rendered", lambda self, keys: made.extend(keys) or rendered(self, keys)
    )
    for n in range(3):
        catalog.add(photo(n), "S0")
    first = build(catalog)
    assert build(catalog).version == first.version
    assert len(made) == 3
    catalog.add(photo(3), "S1", batch="b0002")
    catalog.add(photo(4), "S0", batch="b0002")  # a fourth image of S0: another choice of three
    second = build(catalog)
    assert len(made) == 5
    assert second.version != first.version
    assert sorted(folder.name for folder in catalog.home.images.glob("*/b*")) == ["b0001", "b0002"]
    assert second.index["instance_number"].tolist() == [0, 2, 4, 3]
    np.testing.assert_array_equal(second.images[2], preprocess(photo(4).astype(np.float32), OPTIONS))
    wider = build(catalog, ImageOptions(size=16, max_images=9))  # the fourth had not been prepared before
    assert (len(wider.index), len(made)) == (
        5,
        5 + len(wider.index) - len({*first.index["object"], *second.index["object"]}),
    )


def test_long_batches_are_cut_so_that_a_killed_run_loses_little(
    catalog: HandMadeCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SHARD", 4)
    monkeypatch.setattr(rendering, "_CHUNK", 3)
    for n in range(10):
        catalog.add(photo(n), f"S{n}")
    seen: list[tuple[int, int]] = []

    def dies(done: int, total: int, message: str = "") -> None:
        seen.append((done, total))
        if done >= 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(catalog, progress=dies)
    assert seen == [(3, 10), (4, 10), (7, 10)]
    folder = catalog.home.images / OPTIONS.picture_hash()
    assert sorted(path.name for path in folder.iterdir()) == ["b0001", "options.json"]
    with ThreadPoolExecutor(2) as executor:
        store = build(catalog, executor=executor)
    assert sorted(path.name for path in folder.iterdir()) == ["b0001", "b0001-2", "b0001-3", "options.json"]
    for n in range(10):
        np.testing.assert_array_equal(store.images[n], preprocess(photo(n).astype(np.float32), OPTIONS))


def test_what_does_not_count_is_counted(catalog: HandMadeCatalog) -> None:
    for n in range(5):
        catalog.add(photo(n), "S0")
    catalog.add(photo(6), "S1", modality="US")
    catalog.add(photo(7), "S2", frames=2)  # the header promises a frame that is not there
    store = build(catalog, ImageOptions(size=16, max_images=3, modalities=("CR",)))
    assert store.left_out == {"filtered": 1, "beyond_max_images": 2, "unreadable": 1}
    assert build(catalog, ImageOptions(size=16, max_images=3, modalities=("CR",))).left_out == store.left_out
    assert len(store.index) == 4


def test_a_home_without_images_gives_an_empty_store(catalog: HandMadeCatalog) -> None:
    store = build(catalog)
    assert store.shape == (0, 1, 16, 16)
    assert store.load().shape == (0, 1, 16, 16)
    assert {"row", "study", "series", "patient", "batch", "instance", "frame"} <= set(store.index.columns)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.data())
def test_sharded_pictures_read_like_one_array(sizes: list[int], data: st.DataObject) -> None:
    random = np.random.default_rng(sum(sizes))
    shards = [random.integers(0, 256, (size, 1, 2, 2)).astype(np.uint8) for size in sizes]
    order = random.permutation(sum(sizes))
    shard = np.repeat(np.arange(len(sizes)), sizes)[order]
    place = np.concatenate([np.arange(size) for size in sizes])[order]
    whole = np.concatenate(shards)[order]
    sharded = ShardedImages(shards, shard, place, (1, 2, 2))
    rows = data.draw(st.lists(st.integers(-len(whole), len(whole) - 1)))
    np.testing.assert_array_equal(sharded[np.array(rows, dtype=int)], whole[np.array(rows, dtype=int)])
    np.testing.assert_array_equal(sharded[1:], whole[1:])
    np.testing.assert_array_equal(sharded[-1], whole[-1])
    np.testing.assert_array_equal(sharded[whole[:, 0, 0, 0] > 99], whole[whole[:, 0, 0, 0] > 99])


def test_a_subset_is_a_view_that_reads_what_is_asked_for() -> None:
    shards = [np.full((3, 1, 2, 2), 7, np.uint8), np.arange(8, dtype=np.uint8).reshape(2, 1, 2, 2)]
    images = ShardedImages(shards, np.array([1, 0, 1, 0]), np.array([0, 2, 1, 1]), (1, 2, 2))
    rows = np.array([2, 3])
    view = images.subset(rows)
    assert (view.shape, view.ndim, len(view)) == ((2, 1, 2, 2), 4, 2)
    np.testing.assert_array_equal(view[[1, 0]], images[rows[[1, 0]]])
    shards[1][1] = 99  # nothing was copied
    assert (view[0] == 99).all()
