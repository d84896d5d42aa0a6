"""Options are refused with the key, the value and what is allowed."""

from __future__ import annotations

import pytest

from meta_dx.errors import MetaDxError
from meta_dx.training.options import TrainingOptions


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("precision", "16"),
        ("batch_size", 1),
        ("learning_rate", 0.0),
        ("pretrain_epochs", -1),
        ("label_smoothing", 1.0),
        ("balance", 1.5),
        ("flip", "yes"),
        ("zoom", 1.0),
        ("ways", (1, 5)),
        ("ways", (6, 5)),
        ("shots", (0, 5)),
        ("queries", 0),
        ("validation_shots", ()),
        ("validation_shots", (5, 0)),
        ("validation_ways", 1),
        ("patience", -1),
    ],
)
def test_impossible_values_are_refused(name: str, value: object) -> None:
    with pytest.raises(MetaDxError) as told:
        TrainingOptions(**{name: value})  # type: ignore[arg-type]
    assert told.value.code == "bad_value"
    assert str(told.value).startswith(f"{name} is {value!r}: allowed is ")
