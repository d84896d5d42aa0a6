from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from meta_dx.records.database import Records
from meta_dx.records.support import SupportCase, SupportSets

WHO = {"author": "Dr Who", "reason": "test"}


def case(study: str, code: str, **more: str) -> SupportCase:
    return SupportCase(code, "SCT", f"name of {code}", study, f"P{study}", **more)


def table(**codes: str) -> list[SupportCase]:
    return [case(study, code) for study, code in codes.items()]


def content(version) -> dict[str, tuple[str, str]]:
    return {item.study: (item.code, item.origin) for item in version.cases}


@pytest.fixture
def sets(records: Records) -> SupportSets:
    return SupportSets(records)


# Versions


def test_before_the_first_import_there_is_no_support_set(sets: SupportSets) -> None:
    assert sets.current() is None
    assert sets.versions() == []
    with pytest.raises(MetaDxError, match="none yet") as fault:
        sets.get(1)
    assert fault.value.code == "unknown_support_version"


def test_the_table_makes_the_first_version_with_every_particular(sets: SupportSets) -> None:
    whole = SupportCase("X1", "SCT", "Eczema", "2.25.1", "PAAA", "Dr A", "2024-02-29", "histology")
    made = sets.import_table([whole, case("2.25.2", "X0")], "table.csv", "first import")
    assert (made.version, made.author, made.reason) == (1, "table.csv", "first import")
    assert made.cases_of("X1") == (replace(whole, origin="table"),)
    assert made.cases_of("unknown") == ()
    assert made.diseases == {"X0": "name of X0", "X1": "Eczema"}
    assert list(made.diseases) == ["X0", "X1"]
    assert made == sets.current() == sets.get(1)


def test_a_disease_is_called_what_most_of_its_cases_call_it(sets: SupportSets) -> None:
    words = {"a": "naevus", "b": "Naevus", "c": "Naevus"}
    made = sets.add([SupportCase("N", "", word, study, "P") for study, word in words.items()], **WHO)
    assert made.diseases == {"N": "Naevus"}


def test_a_change_makes_a_version_and_the_old_one_stays_readable(sets: SupportSets) -> None:
    first = sets.import_table(table(a="X", b="Y"), **WHO)
    second = sets.add([case("c", "X")], "Dr A", "biopsy came back")
    third = sets.remove(study="a", author="Dr B", reason="blurred")
    assert [first.version, second.version, third.version] == [1, 2, 3]
    assert sets.get(1) == first
    assert sets.get(2) == second
    assert content(third) == {"b": ("Y", "table"), "c": ("X", "person")}
    log = [(v.version, v.author, v.reason, v.disease_count, v.case_count) for v in sets.versions()]
    assert log == [
        (1, "Dr Who", "test", 2, 2),
        (2, "Dr A", "biopsy came back", 2, 3),
        (3, "Dr B", "blurred", 2, 2),
    ]


def test_saying_the_same_again_makes_no_version(sets: SupportSets) -> None:
    sets.import_table(table(a="X", b="Y"), **WHO)
    sets.add([case("c", "X")], **WHO)
    assert sets.add([case("c", "X")], **WHO).version == 2
    assert sets.import_table(table(b="Y", a="X"), **WHO).version == 2
    sets.correct("c", code="X", **WHO)
    assert len(sets.versions()) == 2


def test_equal_content_has_an_equal_fingerprint_however_it_came_about(fresh: Callable[[], Records]) -> None:
    one, other = SupportSets(fresh()), SupportSets(fresh())
    one.add([case("a", "X"), case("b", "Y")], **WHO)
    other.add([case("b", "Y")], "someone", "else")
    other.add([case("c", "Y")], **WHO)
    different = other.add([case("a", "X")], **WHO)
    same = other.remove(study="c", **WHO)
    assert same.fingerprint == one.get(1).fingerprint != different.fingerprint


def test_an_empty_table_makes_an_empty_set(sets: SupportSets) -> None:
    assert sets.import_table([], **WHO).cases == ()
    assert sets.import_table([], **WHO).version == 1


# The table and people


def test_a_new_table_drops_what_only_the_table_said_and_keeps_what_people_added(sets: SupportSets) -> None:
    sets.import_table(table(a="X", b="Y"), **WHO)
    sets.add([case("p", "X")], **WHO)
    assert content(sets.import_table(table(b="X", c="Z"), **WHO)) == {
        "b": ("X", "table"),
        "c": ("Z", "table"),
        "p": ("X", "person"),
    }


def test_a_case_of_the_table_that_a_person_confirms_outlives_the_table(sets: SupportSets) -> None:
    sets.import_table(table(a="X"), **WHO)
    sets.add([case("a", "X", confirmed_by="Dr A")], **WHO)
    kept = sets.import_table([], **WHO)
    assert [(item.study, item.confirmed_by, item.origin) for item in kept.cases] == [("a", "Dr A", "person")]


def test_what_a_person_removed_stays_out_until_a_person_brings_it_back(sets: SupportSets) -> None:
    sets.import_table(table(a="X", b="X"), **WHO)
    sets.remove(study="a", **WHO)
    assert content(sets.import_table(table(a="X", b="X"), **WHO)) == {"b": ("X", "table")}
    sets.add([case("a", "X")], **WHO)
    assert "a" in content(sets.import_table(table(a="X", b="X"), **WHO))


def test_a_removed_case_comes_back_under_a_new_diagnosis(sets: SupportSets) -> None:
    sets.import_table(table(a="X", b="X"), **WHO)
    sets.remove(study="a", **WHO)
    assert content(sets.import_table(table(a="Y", b="X"), **WHO))["a"] == ("Y", "table")


def test_a_removed_disease_stays_out_with_its_new_cases_too(sets: SupportSets) -> None:
    sets.import_table(table(a="X", b="Y"), **WHO)
    assert content(sets.remove(code="X", **WHO)) == {"b": ("Y", "table")}
    assert content(sets.import_table(table(a="X", b="Y", new="X"), **WHO)) == {"b": ("Y", "table")}
    sets.add([case("p", "X")], **WHO)
    assert set(content(sets.import_table(table(a="X", b="Y", new="X"), **WHO))) == {"b", "p", "new"}


def test_a_correction_outlives_the_table_that_was_wrong(sets: SupportSets) -> None:
    sets.import_table(table(a="X", b="Y"), **WHO)
    corrected = sets.correct("a", code="Y", basis="histology", **WHO)
    assert corrected.cases_of("Y")[0] == case("a", "Y", basis="histology")
    assert content(sets.import_table(table(a="X", b="Y"), **WHO))["a"] == ("Y", "person")
    sets.remove(study="a", **WHO)
    assert "a" not in content(sets.import_table(table(a="X", b="Y"), **WHO))


def test_a_whole_disease_is_corrected_in_one_version(sets: SupportSets) -> None:
    first = sets.import_table(table(a="X", b="X", c="Y"), **WHO)
    studies = [item.study for item in first.cases_of("X")]
    second = sets.correct(studies, code="Z", meaning="Zoster", scheme="ICD10", **WHO)
    assert second.version == 2
    assert second.diseases == {"Y": "name of Y", "Z": "Zoster"}
    assert {item.scheme for item in second.cases_of("Z")} == {"ICD10"}


# Refusals change nothing


REFUSALS = {
    "study_in_two_diseases": lambda s: s.add([case("new", "X"), case("a", "Y")], **WHO),
    "study_in_two_diseases of one call": lambda s: s.add([case("n", "X"), case("n", "Y")], **WHO),
    "study_in_two_diseases of the table": lambda s: s.import_table(table(a="X") + table(a="Y"), **WHO),
    "unknown_support_case": lambda s: s.remove(study="nowhere", **WHO),
    "unknown_support_case of the disease": lambda s: s.remove(code="nothing", **WHO),
    "unknown_support_case of study and disease": lambda s: s.remove(study="a", code="Y", **WHO),
    "unknown_support_case to correct": lambda s: s.correct(["a", "nowhere"], code="Y", **WHO),
    "support_nothing_named": lambda s: s.remove(**WHO),
    "support_case_incomplete": lambda s: s.add([case("", "X")], **WHO),
    "support_case_incomplete without a disease": lambda s: s.import_table([case("new", "")], **WHO),
    "support_case_incomplete without a meaning": lambda s: s.correct("a", code="new", **WHO),
    "support_case_incomplete by emptying": lambda s: s.correct("a", code="", meaning="x", **WHO),
    "support_reason_missing": lambda s: s.add([case("new", "X")], "Dr A", " "),
    "support_reason_missing without author": lambda s: s.add([case("new", "X")], "", "why"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_says_why_and_changes_nothing(sets: SupportSets, name: str) -> None:
    before = sets.import_table(table(a="X", b="Y"), **WHO)
    with pytest.raises(MetaDxError) as fault:
        REFUSALS[name](sets)
    assert fault.value.code == name.split(maxsplit=1)[0]
    assert str(fault.value).endswith(".")
    assert sets.current() == before
    assert len(sets.versions()) == 1


# Algebra, against a model that keeps three plain collections

STUDIES, CODES = st.sampled_from("abcd"), st.sampled_from("XYZ")
OPERATIONS = st.one_of(
    st.tuples(st.just("table"), st.dictionaries(STUDIES, CODES)),
    st.tuples(st.just("add"), STUDIES, CODES),
    st.tuples(st.just("remove study"), STUDIES),
    st.tuples(st.just("remove code"), CODES),
    st.tuples(st.just("correct"), STUDIES, CODES),
)


class Model:
    def __init__(self) -> None:
        self.people: dict[str, str] = {}
        self.table: dict[str, str] = {}
        self.out: set[tuple[str, str]] = set()
        self.diseases_out: set[str] = set()

    @property
    def cases(self) -> dict[str, str]:
        return {**self.table, **self.people}

    @property
    def content(self) -> dict[str, tuple[str, str]]:
        return {s: (c, "person" if s in self.people else "table") for s, c in self.cases.items()}

    def apply(self, operation: tuple) -> bool:
        """Do it and return True, or return False where it must be refused."""
        kind, *rest = operation
        return getattr(self, kind.replace(" ", "_") if kind != "table" else "new_table")(*rest)

    def new_table(self, codes: dict[str, str]) -> bool:
        self.table = {
            s: c
            for s, c in codes.items()
            if s not in self.people and (s, c) not in self.out and c not in self.diseases_out
        }
        return True

    def add(self, study: str, code: str) -> bool:
        if self.cases.get(study, code) != code:
            return False
        self.table.pop(study, None)
        self.people[study] = code
        self.out.discard((study, code))
        self.diseases_out.discard(code)
        return True

    def remove_study(self, study: str) -> bool:
        if study not in self.cases:
            return False
        self.out.add((study, self.cases[study]))
        self.people.pop(study, None)
        self.table.pop(study, None)
        return True

    def remove_code(self, code: str) -> bool:
        gone = [study for study, held in self.cases.items() if held == code]
        if gone:
            self.diseases_out.add(code)
        return bool([self.remove_study(study) for study in gone])

    def correct(self, study: str, code: str) -> bool:
        return study in self.cases and self.remove_study_unless(study, code) and self.add(study, code)

    def remove_study_unless(self, study: str, code: str) -> bool:
        return self.cases[study] == code or self.remove_study(study)


def perform(sets: SupportSets, operation: tuple) -> None:
    kind, *rest = operation
    if kind == "table":
        sets.import_table(table(**rest[0]), **WHO)
    elif kind == "add":
        sets.add([case(*rest)], **WHO)
    elif kind == "remove study":
        sets.remove(study=rest[0], **WHO)
    elif kind == "remove code":
        sets.remove(code=rest[0], **WHO)
    else:
        sets.correct(rest[0], code=rest[1], meaning=f"name of {rest[1]}", **WHO)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=st.lists(OPERATIONS, max_size=12))
def test_any_history_gives_what_the_model_gives_and_never_touches_the_past(
    fresh: Callable[[], Records], operations: list[tuple]
) -> None:
    sets, model, past = SupportSets(fresh()), Model(), {}
    for operation in operations:
        before = sets.current()
        allowed = model.apply(operation)
        try:
            perform(sets, operation)
            assert allowed
        except MetaDxError:
            assert not allowed
        now = sets.current()
        assert (content(now) if now else {}) == model.content
        if before is not None and now is not None:
            assert now.version - before.version == (now.cases != before.cases)
            assert (now.fingerprint == before.fingerprint) == (now.cases == before.cases)
        if now is not None:
            past[now.version] = now
    assert {version: sets.get(version) for version in past} == past
    assert [summary.version for summary in sets.versions()] == list(range(1, len(past) + 1))


# Two writers


def test_an_update_that_waited_for_another_is_worked_out_on_what_that_one_left(sets: SupportSets) -> None:
    second = threading.Thread(target=sets.add, args=([case("c", "Y")],), kwargs=WHO)
    with sets._records.transaction() as session:
        sets.add([case("b", "X")], **WHO, within=session)
        second.start()
        second.join(0.3)
        assert second.is_alive()
    second.join(60)
    assert set(content(sets.current())) == {"b", "c"}
    assert [version.case_count for version in sets.versions()] == [1, 2]


def test_an_update_meant_for_one_version_is_refused_upon_another(sets: SupportSets) -> None:
    assert sets.add([case("a", "X")], **WHO, upon=0).version == 1
    with pytest.raises(MetaDxError, match="no longer in force") as fault:
        sets.add([case("b", "X")], **WHO, upon=0)
    assert fault.value.code == "support_changed"
    assert sets.add([case("b", "X")], **WHO, upon=1).version == 2


def test_threads_that_add_at_once_lose_nothing(sets: SupportSets) -> None:
    start, faults = threading.Barrier(4), []

    def add(name: int) -> None:
        try:
            start.wait()
            for number in range(5):
                sets.add([case(f"{name}.{number}", "X")], f"thread {name}", "at once")
        except Exception as fault:
            faults.append(fault)

    threads = [threading.Thread(target=add, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert faults == []
    assert set(content(sets.current())) == {f"{name}.{number}" for name in range(4) for number in range(5)}
    sizes = [(version.version, version.case_count) for version in sets.versions()]
    assert sizes == [(number, number) for number in range(1, 21)]


def test_processes_that_add_at_once_lose_nothing(home: Home) -> None:
    script = (
        "import sys\n"
        "from meta_dx.home import Home\n"
        "from meta_dx.records.database import Records\n"
        "from meta_dx.records.support import SupportCase, SupportSets\n"
        "sets = SupportSets(Records.open(Home.open(sys.argv[1])))\n"
        "for number in range(10):\n"
        "    sets.add([SupportCase('X', '', 'x', f'{sys.argv[2]}.{number}', 'P')], 'process', 'at once')\n"
    )
    Records.open(home)
    command = [sys.executable, "-c", script, str(home.root)]
    running = [subprocess.Popen([*command, name]) for name in "ab"]
    assert [process.wait(60) for process in running] == [0, 0]
    sets = SupportSets(Records.open(home))
    assert set(content(sets.current())) == {f"{name}.{number}" for name in "ab" for number in range(10)}
    assert [version.case_count for version in sets.versions()] == list(range(1, 21))
