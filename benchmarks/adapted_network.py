"""One adapted network beside its learner: by how much torch, ONNX Runtime and the learner itself differ.

    python benchmarks/adapted_network.py cohort.toml HOME maml reptile …

For learners that are trained in the home, at one and at five confirmed studies of each of N rare diseases: largest and
mean difference of a probability over the pictures of these diseases' other studies, and CPU seconds. Accuracy is not
looked at.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch

from meta_dx.cohort.examples import Examples
from meta_dx.episodes.episode import Query
from meta_dx.inference.network_graph import network_graph
from meta_dx.inference.providers import open_session
from meta_dx.steps import Project, open_project
from meta_dx.steps.cohort import CohortData, assemble
from meta_dx.steps.training import training_task
from meta_dx.training.adapted import adapted_network, support_plan
from meta_dx.training.body import NETWORK_LEARNERS, build_on_images, support_images
from meta_dx.training.embedding import Pictures
from meta_dx.training.feasibility import common_ways
from meta_dx.training.stage import StageResult
from meta_dx.training.task import TrainingTask
from meta_dx.training.train import trained_learner

Array = np.ndarray


def drawn(rare: Examples, ways: int, shots: int) -> tuple[Examples, Array]:
    """Return confirmed studies, and the rows of all pictures of the others of the same diseases."""
    enough = [code for code, n in rare.patients_per_disease().items() if n >= shots + 2][:ways]
    of_disease = [np.flatnonzero(rare.code == code) for code in enough]
    confirmed = rare.take(np.sort(np.concatenate([rows[:shots] for rows in of_disease])))
    others = np.concatenate([rows[shots:] for rows in of_disease])
    return confirmed, np.unique(np.concatenate([rare.images[row] for row in others]))


def learners_own(
    task: TrainingTask, stage: StageResult, confirmed: Examples, images: object, x: Array
) -> Array:
    """Return what the learner answers in the comparison, (n, N)."""
    cpu = torch.device("cpu")
    learner = build_on_images(stage.name, task)
    learner.load_state_dict(stage.best["learner"])
    support = support_images(support_plan(confirmed), confirmed, Pictures(images, cpu), task.seed)
    query = torch.from_numpy(x).float()[None]
    state = learner.eval().adapt(support)
    mask = torch.ones(query.shape[:2], dtype=torch.bool)
    return learner.predict(state, Query(query, mask)).probabilities()[0].numpy()


def compare(project: Project, data: CohortData, name: str, shots: int) -> str:
    """Return one line of figures."""
    task, images = training_task(project, data), data.store.images
    confirmed, rows = drawn(
        data.by_role["rare"], common_ways(task.validation, task.options, task.ancestors), shots
    )
    x = np.asarray(images[rows])
    stage = trained_learner(task, name, project.home.features)
    start = time.process_time()
    network = adapted_network(task, stage, confirmed, images)
    adapting = time.process_time() - start
    graph = network_graph(network, x.shape[1:], len(confirmed.diseases))
    exporting = time.process_time() - start - adapting
    session = open_session(graph, "cpu", threads=1)
    start = time.process_time()
    (found,) = session.run(["probabilities"], {"images": x})
    answering = 1000 * (time.process_time() - start) / len(x)
    with torch.no_grad():
        expected = network(torch.from_numpy(x)).softmax(-1).numpy()
    told = (
        f"{name}, {shots} shot, {len(x)} pictures: ONNX Runtime - torch {np.abs(found - expected).max():.1e}"
    )
    if name in NETWORK_LEARNERS:
        apart = np.abs(found - (own := learners_own(task, stage, confirmed, images, x)))
        same = np.mean(found.argmax(1) == own.argmax(1))
        told += (
            f"; network - learner {apart.max():.1e} (mean {apart.mean():.1e}), same first answer {same:.0%}"
        )
    size = len(graph) / 1e6
    return f"{told}; adapting {adapting:.1f} s, export {exporting:.1f} s, answer {answering:.1f} ms, {size:.1f} MB"


def main() -> None:
    """Compare the learners that are named."""
    project = open_project(sys.argv[1], sys.argv[2])
    data = assemble(project)
    for shots in (1, 5):
        for name in sys.argv[3:]:
            sys.stdout.write(compare(project, data, name, shots) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
