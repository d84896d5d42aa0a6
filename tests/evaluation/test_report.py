"""The report: says the numbers, says who won, needs nothing from elsewhere, shows nobody."""

import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest

from meta_dx.evaluation import wording
from meta_dx.evaluation.comparison import Comparison, Difference
from meta_dx.evaluation.report import render, write_report
from meta_dx.evaluation.report_input import ReportInput, TrainingSummary
from tests.evaluation.report_example import NAMES, example, world


@cache
def filled() -> ReportInput:
    return example(episodes=40)


@cache
def page() -> str:
    return render(filled())


class Page(HTMLParser):
    """Collects text, tags and references."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.open: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br", "img", "link"):
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action", "srcset", "poster", "data"):
                self.references.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


def test_doubt_is_told_for_every_method_and_what_the_served_head_cannot_give_is_said() -> None:
    words = Page(page()).words
    report = filled()
    for result in report.episodic:
        assert f"{result.outside:,} questions about diseases that were not offered" in words
        for found in result.doubt.values():
            for value, ends in found.figures:
                assert value is None or f"{value:.2f} {ends[0]:.2f}–{ends[1]:.2f}" in words
    assert "gives every prediction its missing knowledge" in words
    last = report.episodic[-1]
    plain = {
        name: replace(found, epistemic_auroc=None, openset_auroc=None) for name, found in last.doubt.items()
    }
    told = Page(render(replace(report, episodic=(replace(last, doubt=plain),)))).words
    assert "“epistemic”, “aleatoric” and “interval” stay empty" in told
    assert "gives every prediction its missing knowledge" not in told


def test_every_figure_of_every_method_and_protocol_is_there() -> None:
    words = Page(page()).words
    report = filled()
    assert report.deployment
    assert report.holdout
    for comparison in (*(result.comparison for result in report.episodic), report.deployment.comparison):
        for found in comparison.methods.values():
            for figure in (
                wording.percent(found.accuracy),
                wording.interval(found.ci95),
                wording.decimal(found.auroc),
                wording.percent(found.ece),
            ):
                assert figure in words
        for gap in comparison.differences:
            assert f"{wording.points(gap.estimate)} {wording.points_interval(gap.ci95)}" in words
    for row in report.episodic[-1].comparison.per_disease:
        assert wording.interval(row.ci95, 0) in words
    assert wording.percent(report.deployment.comparison.served.top5) in words
    assert wording.percent(report.holdout.truth) in words


def test_data_training_versions_openings_and_limits_are_told() -> None:
    words = Page(page()).words
    for part in (
        "Research use only.",
        "3,291",
        "The file ends in the middle of its pixel data.",
        "A study with more than one diagnosis has no single answer.",
        "looked at 3 times",
        "9f3c1a7be204d5e8",
        "chosen by 5-case accuracy on the 16 validation diseases",
        "Striped ring (5)",
        *NAMES.values(),
    ):
        assert part in words


def test_nothing_is_loaded_from_anywhere() -> None:
    parsed = Page(page())
    assert not parsed.open  # every element is closed
    assert all(ref.startswith(("#", "data:image/png;base64,")) for ref in parsed.references)
    without_names = re.sub(r'xmlns(:xlink)?="[^"]*"', "", page())
    assert not re.search(r"https?:|//[a-z0-9-]+\.|@import", without_names)
    assert re.findall(r"url\((.{1,6})", without_names) == [
        found for found in re.findall(r"url\((.{1,6})", without_names) if found.startswith("#")
    ]
    assert len(parsed.ids) == len(set(parsed.ids))


def test_no_patient_and_no_study_is_named() -> None:
    made = world()
    for identifier in (*made.examples.patient, *made.examples.study):
        assert str(identifier) not in page()
    assert "2.25." not in page()


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    path = write_report(tmp_path / "report.html", filled())
    assert path.read_text(encoding="utf-8") == page() == render(filled())


@pytest.mark.parametrize(
    ("ends", "says"),
    [
        ((0.01, 0.05), "it is better than the best baseline, SimpleShot (CL2N)"),
        ((-0.01, 0.05), "it is level with the best baseline, SimpleShot (CL2N)"),
        ((-0.05, -0.01), "it is worse than the best baseline, SimpleShot (CL2N)"),
    ],
)
def test_the_headline_says_who_won(ends: tuple[float, float], says: str) -> None:
    result = filled().episodic[-1]
    gap = Difference("prototypical", "simpleshot", sum(ends) / 2, ends)
    changed = replace(result, comparison=replace(result.comparison, differences=(gap,)))
    sentence = wording.headline((filled().episodic[0], changed))
    assert says in sentence
    assert wording.percent(result.comparison.served.accuracy) in sentence
    assert wording.points_interval(ends) in sentence


def test_a_plain_head_that_is_served_is_set_beside_the_meta_learned_one() -> None:
    comparison = filled().episodic[-1].comparison
    assert comparison.serving == "prototypical"
    assert wording.learner_sentences(comparison) == []
    gap = Difference("prototypical", "logistic", -0.03, (-0.05, -0.01))
    plain = replace(comparison, serving="logistic", against_served=(gap,))
    (sentence,) = wording.learner_sentences(plain)
    assert "Prototypical Networks" in sentence
    assert "is worse than the plain head that is served" in sentence
    assert wording.points_interval(gap.ci95) in sentence


def test_each_method_is_paired_with_the_served_one() -> None:
    for result in filled().episodic:
        found = {gap.method: gap for gap in result.comparison.against_served}
        assert set(found) == set(result.comparison.methods) - {result.comparison.serving}
        for name, gap in found.items():
            accuracy = {n: m.accuracy for n, m in result.comparison.methods.items()}
            assert gap.estimate == pytest.approx(accuracy[name] - accuracy[result.comparison.serving])
            assert gap.ci95[0] < gap.estimate < gap.ci95[1]


def test_a_shortcut_that_works_is_called_one() -> None:
    comparison = filled().episodic[-1].comparison
    assert "no shortcut was found" in wording.shortcut_sentence(comparison, 0.2)
    strong = replace(comparison.methods["shortcut"], accuracy=0.4, ci95=(0.3, 0.5))
    found: Comparison = replace(comparison, methods={**comparison.methods, "shortcut": strong})
    assert "more than guessing" in wording.shortcut_sentence(found, 0.2)


def test_names_from_the_hospital_are_escaped() -> None:
    hostile = replace(filled(), cohort="<script>alert(1)</script>", names={"D05": "<b>bold</b> & co"})
    html = render(hostile)
    assert "<script>alert" not in html
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; co" in html


def test_a_report_of_the_bare_minimum_is_whole() -> None:
    bare = replace(
        filled(),
        episodic=filled().episodic[:1],
        deployment=None,
        holdout=None,
        training=TrainingSummary(facts=(), how_chosen="Nothing was chosen."),
        openings=1,
        names={},
        limits=(),
    )
    parsed = Page(render(bare))
    assert not parsed.open
    assert "opened once" in parsed.words
    assert "Hidden cases" not in parsed.words
    assert "nan" not in parsed.words


def test_numbers_in_words() -> None:
    assert wording.points(-0.0004) == "0.0"
    assert wording.points(-0.031) == "\u22123.1"
    assert wording.percent(float("nan")) == wording.percent(None) == "–"
    assert wording.shots(1) == "one confirmed case"
    assert wording.shots(25) == "25 confirmed cases"
