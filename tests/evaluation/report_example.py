"""A report as a real run would fill it; run as a module with a path, it writes one to look at."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np

from meta_dx.evaluation.deployment import evaluate_deployment
from meta_dx.evaluation.episodic import evaluate_episodes
from meta_dx.evaluation.holdout import score_holdout
from meta_dx.evaluation.report import write_report
from meta_dx.evaluation.report_input import (
    Counted,
    DataSummary,
    ReportInput,
    RoleCount,
    TrainingSummary,
)
from tests.evaluation.worlds import FakePredictor, World, gaussian_world

PATIENTS = (5, 5, 6, 6, 7, 7, 8, 8, 9, 10, 11, 12, 13, 14, 16, 18)
NAMES = {
    f"D{i:02d}": f"{texture} {shape}"
    for i, (texture, shape) in enumerate(
        (texture, shape)
        for texture in ("Striped", "Mottled", "Reticular", "Smooth")
        for shape in ("ring", "nodule", "crescent", "satellites")
    )
}


def world() -> World:
    """Sixteen rare diseases, two of them hard to tell apart; one has patients of uneven quality."""
    made = gaussian_world(PATIENTS, seed=4, distance=4.6, size=24)
    vectors = made.vectors.copy()
    near, far = (made.examples.code == code for code in ("D11", "D14"))
    vectors[near] += 0.8 * (vectors[far].mean(0) - vectors[near].mean(0))
    return World(made.examples, vectors)


def curves() -> bytes:
    """Learning curves as the training room would draw them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    axis = figure.subplots()
    steps = np.arange(60)
    axis.plot(steps, 92 - 70 * np.exp(-steps / 12), color="#9aa9b1", label="training episodes")
    axis.plot(steps, 78 - 55 * np.exp(-steps / 10), color="#0b6e75", label="validation diseases")
    axis.set_ylabel("accuracy, %")
    axis.legend(frameon=False)
    with io.BytesIO() as stream:
        figure.savefig(stream, format="png", dpi=110)
        return stream.getvalue()


def example(episodes: int = 200, shots: tuple[int, ...] = (1, 5)) -> ReportInput:
    """Return a filled report."""
    made = world()
    extra = {"shortcut": np.random.default_rng(0).normal(size=(len(made.vectors), 8)).astype(np.float32)}
    episodic = tuple(
        evaluate_episodes(
            FakePredictor(temperature=2.5),
            made.vectors,
            made.examples,
            ways=5,
            shots=k,
            queries=10,
            episodes=episodes,
            seed=0,
            extra=extra,
        )
        for k in shots
    )
    deployment = evaluate_deployment(
        FakePredictor(temperature=2.5),
        made.vectors,
        made.examples,
        offered=made.examples.diseases,
        cap=10,
        seed=0,
        repeats=10,
        extra=extra,
    )
    random = np.random.default_rng(5)
    truth = {f"2.25.{i}": str(code) for i, code in enumerate(random.choice(made.examples.code, 40))}
    predictions = {}
    for study, code in truth.items():
        weight = {other: float(np.exp(1.2 * random.normal() + 2.2 * (other == code))) for other in NAMES}
        predictions[study] = {other: w / sum(weight.values()) for other, w in weight.items()}
    data = DataSummary(
        found=3291,
        accepted=3240,
        duplicates=24,
        not_dicom=9,
        rejected=(
            Counted("truncated", 8, "The file ends in the middle of its pixel data."),
            Counted("no_pixels", 6, "The object holds no image (for example a structured report)."),
            Counted("undecodable", 4, "The compressed pixel data cannot be decoded."),
        ),
        studies=2418,
        patients=1987,
        without_diagnosis=164,
        roles=(
            RoleCount("common", 32, 1312, 1540),
            RoleCount("validation", 16, 356, 420),
            RoleCount("rare", 16, 155, 186),
        ),
        near_duplicate_groups=7,
        near_duplicate_patients=15,
        left_out=(
            Counted("several diagnoses", 31, "A study with more than one diagnosis has no single answer."),
            Counted("too few patients", 22, "The disease has fewer than five patients."),
            Counted("patient on another side", 14, "The patient also has a disease of another role."),
        ),
    )
    training = TrainingSummary(
        facts=(
            ("Encoder", "small residual network, 0.7 million weights, 64 × 64 pixels, 1 channel"),
            (
                "Learnt by",
                "classifying the common diseases, then 1,800 episodes of 10 diseases, 5 cases each",
            ),
            ("Time and device", "1 min 52 s on 2 CPU cores"),
            ("Early stop", "after epoch 46 of 60, weights of epoch 38 kept"),
        ),
        how_chosen="Encoder and head were chosen by 5-case accuracy on the 16 validation diseases; "
        "the temperature was fitted there as well.",
        candidates=(
            ("Candidate", "1 case, %", "5 cases, %", "Calibration error, %"),
            ("Prototypical Networks after episodes", "64.1", "83.0", "2.1"),
            ("SimpleShot on the same encoder", "61.8", "81.9", "3.4"),
            ("Logistic regression on the same encoder", "61.0", "82.2", "2.6"),
            ("Prototypical Networks before episodes", "57.9", "79.4", "4.0"),
        ),
        curves=curves(),
    )
    return ReportInput(
        cohort="Demo cohort",
        created="2026-11-23",
        episodic=episodic,
        deployment=deployment,
        holdout=score_holdout(predictions, truth, {study: study for study in truth}),
        data=data,
        training=training,
        openings=3,
        versions=(
            ("Bundle", "9f3c1a7be204d5e8"),
            ("Split", "v0001"),
            ("Data", "c41d09aa77e2, preprocessing 5b20ff13"),
            ("Support set", "version 4"),
            ("Program", "meta-dx 0.1.0, ONNX Runtime 1.31.1 on CPU"),
            ("Command", "make run"),
        ),
        names=NAMES,
        limits=(
            "The diseases are invented and the pictures synthetic: nothing here speaks about real patients.",
        ),
    )


if __name__ == "__main__":
    write_report(Path(sys.argv[1]), example())
