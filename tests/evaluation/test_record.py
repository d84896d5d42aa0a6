"""Results as JSON: the contract's object against its schema, and the way there and back."""

import json
from dataclasses import asdict
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from meta_dx.evaluation.deployment import DeploymentResult, evaluate_deployment
from meta_dx.evaluation.episodic import EpisodicResult, evaluate_episodes
from meta_dx.evaluation.holdout import HoldoutResult, score_holdout
from meta_dx.evaluation.record import contract, from_json, to_json
from tests.evaluation.worlds import FakePredictor, gaussian_world

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/contract-schemas/evaluate.schema.json").read_text())


def results(serving: str = "prototypical", episodes: int = 20) -> tuple[EpisodicResult, DeploymentResult]:
    world = gaussian_world([4, 7, 8, 9, 10, 12], seed=0, distance=2.0)
    heads = tuple(dict.fromkeys((serving, "simpleshot", "logistic")))
    common = {"seed": 0, "heads": heads, "extra": {"shortcut": world.vectors[:, :2]}}
    episodic = evaluate_episodes(
        FakePredictor(),
        world.vectors,
        world.examples,
        ways=5,
        shots=3,
        queries=4,
        episodes=episodes,
        **common,
    )
    deployment = evaluate_deployment(
        FakePredictor(),
        world.vectors,
        world.examples,
        offered=world.examples.diseases,
        cap=5,
        repeats=3,
        **common,
    )
    return episodic, deployment


@pytest.mark.parametrize("serving", ["prototypical", "logistic"])
@pytest.mark.parametrize("episodes", [1, 20])
def test_the_object_of_evaluate_keeps_its_schema(serving: str, episodes: int) -> None:
    episodic, deployment = results(serving, episodes)
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for found in (contract(episodic), contract(episodic, deployment)):
        text = json.dumps(found, allow_nan=False)
        jsonschema.validate(json.loads(text), SCHEMA)
    assert set(contract(episodic)) == set(SCHEMA["required"])
    assert {"simpleshot", "logistic", "shortcut"} <= set(found["baselines"])
    assert found["accuracy"] == episodic.comparison.methods[serving].accuracy


def test_the_schema_refuses_what_the_contract_does_not_allow() -> None:
    found = contract(results()[0])
    for broken in (
        found | {"accuracy": 62.0},
        found | {"ci95": [0.1]},
        found | {"baselines": {"simpleshot": found["baselines"]["simpleshot"]}},
        {key: value for key, value in found.items() if key != "left_out"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, SCHEMA)


def test_results_come_back_from_json_as_they_were() -> None:
    episodic, deployment = results(episodes=1)
    holdout = score_holdout({}, {"s": "A"}, {"s": "P"})
    for result in (episodic, deployment, holdout):
        text = json.dumps(to_json(result), allow_nan=False)
        back = from_json(type(result), json.loads(text))
        np.testing.assert_equal(asdict(back), asdict(result))
        assert isinstance(back, EpisodicResult | DeploymentResult | HoldoutResult)
