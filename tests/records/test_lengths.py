"""Readers' lengths: kept by reader and case, changed one by one, whatever becomes of the reading."""

from __future__ import annotations

import threading

import pytest

from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from meta_dx.records.accounts import Account, Accounts
from meta_dx.records.audit import AuditTrail
from meta_dx.records.cases import Cases
from meta_dx.records.database import Records
from meta_dx.records.lengths import MOST_LENGTHS, Length, Lengths
from meta_dx.records.opinions import BlindOpinion, Decision, Diagnosis
from tests.records.test_cases import case

X = Diagnosis("X", "SCT", "disease x")
FIRST, SECOND = case(0).study, case(1).study


def line(number: float = 0.0, frame: int = 0) -> Length:
    return Length("a" * 64, frame, (number, 0.1 + number), (1 / 3, -2.5e-7))


class Desk:
    """Two readers who have opened two cases."""

    def __init__(self, home: Home, records: Records) -> None:
        trail = AuditTrail(records, home)
        self.cases, self.lengths = Cases(records, trail), Lengths(records)
        accounts = Accounts(records, trail)
        self.anna, self.bert = (
            accounts.add(name, "reader", password="a long password", must_change=False)[0]  # noqa: S106
            for name in ("anna", "bert")
        )
        self.cases.add(case(number) for number in range(3))
        for who in (self.anna, self.bert):
            for study in (FIRST, SECOND):
                self.cases.open(who, study)


@pytest.fixture
def desk(home: Home, records: Records) -> Desk:
    return Desk(home, records)


def test_lengths_come_back_exactly_for_their_reader_and_case_alone(desk: Desk) -> None:
    drawn = {"b": line(2.0), "a": line(1 / 7, frame=3)}
    desk.lengths.change(desk.anna, FIRST, drawn)
    assert list(desk.lengths.of(desk.anna, FIRST).items()) == list(drawn.items())
    assert desk.lengths.of(desk.bert, FIRST) == desk.lengths.of(desk.anna, SECOND) == {}


def test_a_change_touches_what_it_names_and_nothing_else(desk: Desk) -> None:
    desk.lengths.change(desk.anna, FIRST, {"a": line(1), "b": line(2)})
    desk.lengths.change(desk.bert, FIRST, {"a": line(9)})
    desk.lengths.change(desk.anna, FIRST, {"b": line(5), "c": line(3)})
    desk.lengths.change(desk.anna, FIRST, {"a": None, "never there": None})
    assert desk.lengths.of(desk.anna, FIRST) == {"b": line(5), "c": line(3)}
    desk.lengths.change(desk.anna, FIRST, {"b": None, "c": None})
    assert desk.lengths.of(desk.anna, FIRST) == {}
    assert desk.lengths.of(desk.bert, FIRST) == {"a": line(9)}


def test_they_outlast_drafts_opinions_and_decisions(desk: Desk) -> None:
    desk.lengths.change(desk.anna, FIRST, {"a": line()})
    desk.cases.save_draft(desk.anna, FIRST, {"for": "blind 1", "text": "a shadow"})
    desk.cases.read(desk.anna, FIRST, BlindOpinion((X,), 70))
    desk.cases.reveal(desk.anna, FIRST, None)
    desk.cases.decide(desk.anna, FIRST, Decision("own", X), None)
    desk.cases.open(desk.anna, FIRST)
    assert desk.lengths.of(desk.anna, FIRST) == {"a": line()}


def test_a_case_has_to_be_opened_first(desk: Desk) -> None:
    assert desk.lengths.of(desk.anna, case(2).study) == {}
    with pytest.raises(MetaDxError, match="Open the case first") as fault:
        desk.lengths.change(desk.anna, case(2).study, {"a": line()})
    assert fault.value.code == "not_opened"


def test_there_is_a_most_and_nothing_of_what_goes_beyond_is_kept(desk: Desk) -> None:
    full = {f"{number}": line(number) for number in range(MOST_LENGTHS)}
    desk.lengths.change(desk.anna, FIRST, full)
    with pytest.raises(MetaDxError, match="remove some") as fault:
        desk.lengths.change(desk.anna, FIRST, {"0": None, "x": line(), "y": line()})
    assert fault.value.code == "too_many_lengths"
    assert desk.lengths.of(desk.anna, FIRST) == full
    desk.lengths.change(desk.anna, FIRST, {"0": None, "x": line()})
    assert len(desk.lengths.of(desk.anna, FIRST)) == MOST_LENGTHS


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e6, -1e6])
def test_a_length_that_lies_nowhere_is_none(value: float) -> None:
    with pytest.raises(MetaDxError) as fault:
        Length("a", 0, (0.0, 0.0), (1.0, value))
    assert fault.value.code == "bad_length"


def test_two_windows_that_change_lengths_at_once_lose_none(desk: Desk) -> None:
    def draw(window: int, who: Account) -> None:
        for number in range(8):
            desk.lengths.change(who, FIRST, {f"{window}-{number}": line(number)})

    windows = [threading.Thread(target=draw, args=(n, desk.anna)) for n in range(3)]
    for window in windows:
        window.start()
    for window in windows:
        window.join()
    assert len(desk.lengths.of(desk.anna, FIRST)) == 24
