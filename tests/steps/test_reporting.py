"""The table of the choice in the report: what won comes first, and reads without knowing the names of columns."""

from __future__ import annotations

from typing import Any

from meta_dx.steps.reporting import _candidates


def _row(checkpoint: str, head: str, shots: int, accuracy: float, **more: Any) -> dict[str, Any]:
    return {
        "checkpoint": checkpoint,
        "head": head,
        "shots": shots,
        "ways": 5,
        "episodes": 400,
        "diseases": 10,
        "accuracy": accuracy,
        "low": accuracy - 0.05,
        "high": accuracy + 0.04,
        "mc95": 0.01,
        "serves": True,
        "chosen": False,
        **more,
    }


def test_the_row_that_was_chosen_comes_first_and_the_others_fall() -> None:
    rows = [
        *(_row("pretrain", "simpleshot", k, 0.7 + k / 50, mean=0.76) for k in (1, 5)),
        *(_row("prototypical", "simpleshot", k, 0.75 + k / 50, mean=0.81) for k in (1, 5)),
        *(_row("prototypical", "anp", k, 0.745 + k / 50, mean=0.805, chosen=True) for k in (1, 5)),
        _row("maml", "maml", 1, 0.8, mean=0.8, serves=False),
    ]
    assert _candidates(rows) == (
        ("Candidate", "1 case, %", "5 cases, %", "Mean, %", "Can be served"),
        ("anp on the prototypical weights", "76.5 (71.5–80.5)", "84.5 (79.5–88.5)", "80.5", "yes"),
        ("simpleshot on the prototypical weights", "77.0 (72.0–81.0)", "85.0 (80.0–89.0)", "81.0", "yes"),
        ("maml", "80.0 (75.0–84.0)", "–", "80.0", "no"),
        ("simpleshot on the pretrain weights", "72.0 (67.0–76.0)", "80.0 (75.0–84.0)", "76.0", "yes"),
    )
