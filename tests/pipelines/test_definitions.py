"""The code location loads as a user loads it, and holds exactly the assets, checks, jobs and triggers it should."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

ROOT = Path(__file__).parents[2]
SNAPSHOT = Path(__file__).with_name("definitions.txt")


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    from pipelines.definitions import defs

    return defs


def described(definitions: dg.Definitions) -> str:
    """One line a thing: what the UI would show and what others rely on."""
    graph = definitions.resolve_asset_graph()
    lines = []
    for key in sorted(graph.get_all_asset_keys(), key=str):
        node = graph.get(key)
        parents = ", ".join(sorted(parent.to_user_string() for parent in node.parent_keys)) or "-"
        partitions = "by batch" if node.partitions_def else "whole"
        kinds = ", ".join(sorted(node.kinds))
        owners = ", ".join(node.owners)
        lines.append(
            f"asset {key.to_user_string()} | {node.group_name} | {partitions} | {kinds} | {owners} | from {parents}"
        )
    for check in sorted(graph.asset_check_keys, key=str):
        blocking = "blocking" if graph.get(check).blocking else "warning"
        lines.append(f"check {check.asset_key.to_user_string()}.{check.name} | {blocking}")
    repository = definitions.get_repository_def()
    lines += [f"job {name}" for name in sorted(repository.job_names) if not name.startswith("__")]
    lines += [f"schedule {s.name} | {s.cron_schedule}" for s in repository.schedule_defs]
    lines += [f"sensor {s.name}" for s in repository.sensor_defs]
    return "\n".join(lines) + "\n"


def test_the_definitions_are_those_of_the_snapshot(definitions: dg.Definitions) -> None:
    """Write the snapshot anew with: python -m tests.pipelines.test_definitions."""
    assert described(definitions) == SNAPSHOT.read_text()


def test_every_asset_is_described_owned_and_versioned(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description, key
        assert node.owners, key
        assert node.code_version, key


@pytest.mark.parametrize(
    ("module", "constant", "groups"),
    [
        ("meta_dx.cohort.preprocessing", "PREPROCESSING_VERSION", "cohort"),
        ("meta_dx.training.task", "TRAINING_VERSION", "training"),
        ("meta_dx.inference", "EXPORT_VERSION", "models"),
        ("meta_dx.evaluation.options", "EVALUATION_VERSION", "evaluation"),
    ],
)
def test_raising_the_version_of_a_step_raises_the_code_version_of_its_group_alone(
    module: str, constant: str, groups: str
) -> None:
    code = (
        f"import {module} as step\nstep.{constant} = 77\n"
        "from pipelines.definitions import defs\n"
        "graph = defs.resolve_asset_graph()\n"
        "nodes = [graph.get(key) for key in graph.get_all_asset_keys()]\n"
        "print(*sorted({node.group_name for node in nodes if '77' in node.code_version}))\n"
        "print(*sorted({node.group_name for node in nodes if '77' not in node.code_version}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    raised, others = done.stdout.splitlines()
    assert raised == groups
    assert groups not in others.split()


def test_a_learner_whose_training_changed_is_out_of_date_and_the_others_are_not(
    definitions: dg.Definitions,
) -> None:
    graph = definitions.resolve_asset_graph()
    version = {
        name: graph.get(dg.AssetKey(f"{name}_learner")).code_version
        for name in ("anp", "maml", "mann", "leo")
    }
    assert version["mann"] == version["leo"] not in (version["anp"], version["maml"])


def test_the_code_location_loads_from_the_workspace_file() -> None:
    dagster = str(Path(sys.executable).with_name("dagster"))
    done = subprocess.run(
        [dagster, "definitions", "validate", "-w", "workspace.yaml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Validation successful for code location meta_dx" in done.stderr + done.stdout


def test_the_code_location_loads_without_heavy_libraries() -> None:
    code = (
        "import sys, pipelines.definitions\n"
        "sys.exit(','.join(sorted({'torch', 'great_expectations', 'monai', 'onnxruntime'} & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    from pipelines.definitions import defs

    SNAPSHOT.write_text(described(defs))
