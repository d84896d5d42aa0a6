"""Damaged files: only coded refusals or instances come out, in bounded memory and time."""

import itertools

import pytest

from meta_dx.dicom.rejections import RejectionCode
from tests.dicom.mutant_reader import LIMITS, check, read_mutants
from tests.dicom.mutants import TOKEN, mutant, seeds, written_seeds

MUTANTS_OF_EACH = 40


@pytest.fixture(scope="module")
def sound():
    return seeds()


def test_the_seeds_are_sound_and_small(sound):
    assert {check(content) for content in sound.values()} == {("accepted", None)}
    assert max(map(len, sound.values())) < 12_000
    assert all(TOKEN.encode() in content for name, content in sound.items() if name != "deflated")


def test_the_same_number_damages_in_the_same_way(sound):
    for content, number in itertools.product(list(sound.values())[:4], range(20)):
        assert mutant(content, number) == mutant(content, number)
    assert len({mutant(sound["explicit"], number) for number in range(200)}) > 150


def test_a_thousand_damaged_files_end_in_codes(tmp_path):
    paths = written_seeds(tmp_path)
    outcome = read_mutants(tmp_path, 0, MUTANTS_OF_EACH)
    assert outcome.findings == []
    assert sum(outcome.outcomes.values()) == len(paths) * MUTANTS_OF_EACH
    # The mutator is worth something: many codes, and some damage that leaves a picture.
    codes = set(outcome.outcomes) - {"accepted"}
    assert codes <= set(RejectionCode) and len(codes) >= 8
    assert outcome.outcomes["accepted"] > 100
    assert outcome.peak_bytes < (256 << 20) + 2 * LIMITS.decoded_bytes


def test_a_process_that_dies_is_a_finding_and_the_rest_is_read(tmp_path, monkeypatch):
    written_seeds(tmp_path)
    for path in list(tmp_path.iterdir())[2:]:
        path.unlink()
    monkeypatch.setenv("META_DX_TEST_DIES_AT", "7")
    outcome = read_mutants(tmp_path, 0, 10)
    assert len(outcome.findings) == 1 and "job 7" in outcome.findings[0]
    assert sum(outcome.outcomes.values()) == 20 - 1 - 7  # what the dead process had counted is lost
