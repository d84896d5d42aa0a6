"""The memory-augmented network against a numpy implementation written from the paper's equations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from meta_dx.errors import MetaDxError
from meta_dx.learners.mann import Mann, accuracy_by_presentation, sequence_loss
from meta_dx.learners.options import MannOptions
from tests.learners.episodes import only, random_episode

SIZE, WAYS = 8, 3


def small(seed: int = 0, **options: Any) -> Mann:
    torch.manual_seed(seed)
    net = Mann(SIZE, WAYS, **{"controller": 7, "rows": 6, "width": 5, "heads": 2, **options}).double()
    for parameter in net.parameters():  # far from zero, so that every gate and key matters
        torch.nn.init.normal_(parameter, std=0.7)
    return net


def sequence(seed: int, tasks: int = 3, steps: int = 9) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tasks, steps, SIZE, generator=generator, dtype=torch.float64)
    return x, one_hot(torch.randint(WAYS, (tasks, steps), generator=generator), WAYS).double()


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def by_the_equations(net: Mann, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One sequence, step by step, head by head, row by row: answers (T, N) and what is left at the end."""
    p = {name: value.detach().numpy() for name, value in net.named_parameters()}
    n, rows, width, gamma = net.heads, net.rows, net.width, net.decay
    memory, usage, read_weights = np.zeros((rows, width)), np.zeros(rows), np.zeros((n, rows))
    size = p["from_past.weight"].shape[0] // 4
    h, c, reads, label, answers = np.zeros(size), np.zeros(size), np.zeros(n * width), np.zeros(WAYS), []
    for x_t, y_t in zip(x, y, strict=True):
        pre = p["from_input.weight"] @ np.concatenate([x_t, label]) + p["from_input.bias"]
        pre = pre + p["from_past.weight"] @ np.concatenate([h, reads])
        f, i, o, u = np.split(pre, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(u)
        h = sigmoid(o) * np.tanh(c)
        told = (p["to_heads.weight"] @ h + p["to_heads.bias"]).reshape(n, -1)
        nth_smallest = np.sort(usage)[n - 1]
        least_used = np.array([1.0 if w <= nth_smallest else 0.0 for w in usage])  # equation 6
        if least_used.sum() > n:  # equal usage: the first rows
            least_used = np.isin(np.arange(rows), np.argsort(usage, kind="stable")[:n]).astype(float)
        before, written = memory.copy(), told[:, -width - 1 : -1]
        memory = before.copy()
        memory[np.argmin(usage)] = 0.0
        writes = [
            sigmoid(a) * w + (1 - sigmoid(a)) * least_used
            for a, w in zip(told[:, -1], read_weights, strict=True)
        ]
        for head in range(n):
            for row in range(rows):
                memory[row] += writes[head][row] * np.tanh(written[head])  # equation 8
        new_reads = []
        for head in range(n):
            k = np.tanh(told[head, :width])
            cosine = np.array([k @ m / np.sqrt((k @ k) * (m @ m) + 1e-6) for m in memory])
            read_weights[head] = np.exp(cosine) / np.exp(cosine).sum()
            new_reads.append(read_weights[head] @ memory)
        usage = gamma * usage + read_weights.sum(0) + np.sum(writes, 0)  # equation 5
        reads, label = np.concatenate(new_reads), y_t
        answers.append(p["to_logits.weight"] @ np.concatenate([h, reads]) + p["to_logits.bias"])
    left = {
        "memory": memory,
        "usage": usage,
        "read_weights": read_weights,
        "reads": reads,
        "hidden": h,
        "cell": c,
        "label": label,
    }
    return np.stack(answers), left


@pytest.mark.parametrize("write", ["key", "own"])
@pytest.mark.parametrize("heads", [1, 2, 3])
def test_every_step_is_that_of_the_equations(write: str, heads: int) -> None:
    net, (x, y) = small(heads, write=write, heads=heads), sequence(heads)
    logits, state = net._run(x, y)
    for e in range(len(x)):
        expected, left = by_the_equations(net, x[e].numpy(), y[e].numpy())
        np.testing.assert_allclose(logits[e].detach().numpy(), expected, rtol=1e-10, atol=1e-12)
        for name, value in left.items():
            np.testing.assert_allclose(state[name][e].detach().numpy(), value, rtol=1e-10, atol=1e-12)


def test_the_least_used_row_is_emptied_before_it_is_written() -> None:
    net = small(1)
    x, y = sequence(1, tasks=1)
    _, state = net._run(x, y)
    usage = torch.tensor([[0.5, 0.1, 0.9, 0.2, 0.8, 0.7]], dtype=torch.float64)
    drive = net.from_input(torch.cat([x[:, 0], y[:, 0]], 1))
    marked = state["memory"].clone()
    marked[:, 1] += 100.0  # row 1 is the least used: nothing of it may be left
    plain, other = (
        net.step(drive, {**state, "usage": usage, "memory": m}) for m in (state["memory"], marked)
    )
    torch.testing.assert_close(other["memory"], plain["memory"], rtol=0, atol=0)
    marked = state["memory"].clone()
    marked[:, 3] += 100.0  # row 3 comes next: written to, not emptied
    other = net.step(drive, {**state, "usage": usage, "memory": marked})
    torch.testing.assert_close(
        other["memory"][:, 3] - plain["memory"][:, 3], torch.full((1, 5), 100.0, dtype=torch.float64)
    )


def test_the_label_at_a_step_never_reaches_the_answer_at_that_step() -> None:
    net, (x, y) = small(2), sequence(2, tasks=1)
    shown = y.clone().requires_grad_()
    for t in range(9):
        slope = torch.autograd.grad(net.run_sequence(x, shown)[0, t].square().sum(), shown)[0][0].abs().sum(1)
        assert (slope[t:] == 0).all()
        assert (slope[:t] > 0).all()
    changed = y.clone()
    changed[:, 4] = y[:, 4].roll(1, -1)
    before, after = net.run_sequence(x, y), net.run_sequence(x, changed)
    torch.testing.assert_close(after[:, :5], before[:, :5], rtol=0, atol=0)
    assert not torch.isclose(after[:, 5:], before[:, 5:], rtol=0, atol=1e-9).all(-1).any()


def test_a_batch_of_sequences_equals_each_one_alone_and_padding_anywhere_leaves_no_trace() -> None:
    net = small(3)
    (x, y), generator = sequence(3, tasks=4), torch.Generator().manual_seed(0)
    real = torch.rand(4, 9, generator=generator) < 0.6
    real[0] = True
    padded = torch.where(real[..., None], x, torch.nan)
    logits, state = net._run(padded, y * real[..., None])
    for e in range(4):
        alone, left = net._run(x[e : e + 1, real[e]], y[e : e + 1, real[e]])
        torch.testing.assert_close(logits[e, real[e]], alone[0], rtol=1e-10, atol=1e-12)
        for name, value in left.items():
            torch.testing.assert_close(state[name][e], value[0], rtol=1e-10, atol=1e-12)
    slope = torch.autograd.grad(logits[real].sum(), net.from_input.weight)[0]
    assert slope.isfinite().all()


def test_support_rows_are_interleaved_over_the_classes_before_they_are_read() -> None:
    net, episode = small(4), random_episode(4, shots=[[1, 3, 2]])
    state = net.adapt(episode.support)
    order = [0, 1, 4, 2, 5, 3]  # first examples of classes 0, 1, 2; second ones of 1, 2; third one of 1
    assert episode.support_y[0, order].tolist() == [0, 1, 2, 1, 2, 1]
    _, expected = by_the_equations(
        net, episode.support_x[0, order].numpy(), episode.support.onehot()[0, order].numpy()
    )
    for name, value in expected.items():
        np.testing.assert_allclose(state[name][0].detach().numpy(), value, rtol=1e-10, atol=1e-12)
    assert state["count"].tolist() == [[1.0, 3.0, 2.0]]


def test_each_query_is_one_step_from_the_state_after_the_support() -> None:
    net, episode = small(5), random_episode(5, shots=[[2, 2, 2], [1, 1, 1]])
    found = net.predict(net.adapt(episode.support), episode.query).logits
    for e, order in enumerate([[0, 2, 4, 1, 3, 5], [0, 1, 2]]):
        x, y = episode.support_x[e, order], episode.support.onehot()[e, order]
        for q in range(12):
            asked = torch.cat([x, episode.query_x[e, q : q + 1]]).numpy()
            answers, _ = by_the_equations(net, asked, torch.cat([y, y[:1]]).numpy())
            np.testing.assert_allclose(found[e, 0, q].detach().numpy(), answers[-1], rtol=1e-10, atol=1e-12)


def test_queries_never_influence_one_another_and_leave_the_state_alone() -> None:
    net, episode = small(6), random_episode(6, shots=[[2, 1, 3]])
    state = net.adapt(episode.support)
    kept = {name: value.clone() for name, value in state.items()}
    found = net.predict(state, episode.query).logits
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    shuffled = net.predict(state, replace(episode.query, x=episode.query_x[:, order])).logits
    torch.testing.assert_close(shuffled, found[:, :, order], rtol=1e-12, atol=1e-12)
    alone = net.predict(state, replace(episode.query, x=episode.query_x[:, 3:4])).logits
    torch.testing.assert_close(alone, found[:, :, 3:4], rtol=1e-12, atol=1e-12)
    for name, value in kept.items():
        torch.testing.assert_close(state[name], value, rtol=0, atol=0)


def test_ragged_episodes_together_equal_each_alone() -> None:
    net, episode = small(7), random_episode(7, shots=[[1, 4, 2], [1, 1, 1], [3, 2, 3]])
    filled = torch.where(episode.support_mask[..., None], episode.support_x, 1e3)
    together = net.predict(net.adapt(replace(episode, support_x=filled).support), episode.query).logits
    for e in range(3):
        alone = only(episode, e)
        expected = net.predict(net.adapt(alone.support), alone.query).logits
        torch.testing.assert_close(together[e : e + 1], expected, rtol=1e-10, atol=1e-12)


def test_order_and_names_of_the_classes_do_change_its_answers() -> None:
    net, episode = small(8), random_episode(8, shots=[[2, 2, 2]])
    found = net.predict(net.adapt(episode.support), episode.query).probabilities()
    order = torch.tensor([1, 0, 2, 3, 4, 5])  # the two examples of class 0 change places
    swapped = replace(episode, support_x=episode.support_x[:, order])
    other = net.predict(net.adapt(swapped.support), episode.query).probabilities()
    assert (other - found).abs().max() > 1e-4
    to = torch.tensor([1, 2, 0])
    renamed = replace(episode, support_y=to[episode.support_y])
    other = net.predict(net.adapt(renamed.support), episode.query).probabilities()[..., to]
    assert (other - found).abs().max() > 1e-4
    told = net.capabilities
    assert (told.fixed_ways, told.order_invariant, told.label_equivariant) == (True, False, False)
    assert told.serves_from_state
    assert not told.transductive


@pytest.mark.parametrize("shots", [[[1, 2]], [[1, 2, 1, 1]], [[1, 2, 1], [2, 2]]])
def test_another_number_of_classes_is_refused(shots: list[list[int]]) -> None:
    episode, generator = random_episode(9, shots=shots), torch.Generator().manual_seed(0)
    net, paper = small(9), small(9, objective="sequence")
    for call in (lambda: net.adapt(episode.support), lambda: paper.loss(episode, generator=generator)):
        with pytest.raises(MetaDxError, match=r"built for 3 classes; an episode has [24]") as told:
            call()
        assert told.value.code == "other_ways"


def test_the_query_objective_is_the_error_of_the_forked_queries() -> None:
    net, episode = small(10), random_episode(10, shots=[[2, 1, 1], [1, 1, 1]])
    loss, _ = net.loss(episode)
    p = net.predict(net.adapt(episode.support), episode.query).probabilities()
    expected = -p.gather(-1, episode.query_y.unsqueeze(-1)).log().mean()
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)


def test_the_sequence_objective_is_the_error_of_every_step_in_an_order_drawn_by_the_generator() -> None:
    net = small(11, objective="sequence")
    episode = random_episode(11, shots=[[2, 1, 1], [1, 1, 1]], queries=2)
    loss, metrics = net.loss(episode, generator=torch.Generator().manual_seed(3))
    order = torch.rand(2, 10, generator=torch.Generator().manual_seed(3)).argsort(1)
    surprise, right = [], 0
    for e in range(2):
        rows = [int(i) for i in order[e] if int(i) >= 4 or episode.support_mask[e, i]]
        x = torch.cat([episode.support_x[e], episode.query_x[e]])[rows].numpy()
        y = torch.cat([episode.support_y[e], episode.query_y[e]])[rows]
        answers = torch.from_numpy(by_the_equations(net, x, one_hot(y, WAYS).double().numpy())[0])
        surprise += torch.nn.functional.cross_entropy(answers, y, reduction="none").tolist()
        asked = torch.tensor([row >= 4 for row in rows])
        right += int((answers.argmax(1) == y)[asked].sum())
    assert float(loss.detach()) == pytest.approx(np.mean(surprise), rel=1e-10)
    assert len(surprise) == 19
    assert float(metrics["accuracy"]) == pytest.approx(right / 12)
    with pytest.raises(ValueError, match="generator"):
        net.loss(episode)


def test_accuracy_is_counted_by_the_presentation_of_a_class() -> None:
    y = torch.tensor([[0, 0, 1, 0, 1], [2, 1, 2, 0, 0]])
    said = torch.tensor([[0, 1, 1, 0, 2], [2, 0, 0, 0, 0]])
    onehot = one_hot(y, 3).double()
    onehot[1, 4] = 0  # padding
    # First: 0 yes, 1 yes, 2 yes, 1 no, 0 yes. Second: 0 no, 1 no, 2 no. Third: 0 yes.
    found = accuracy_by_presentation(one_hot(said, 3).double(), onehot)
    torch.testing.assert_close(found, torch.tensor([4 / 5, 0.0, 1.0], dtype=torch.float64))


def test_gradients_of_the_sequence_loss_are_those_of_differences() -> None:
    net, (x, y) = small(12, heads=1), sequence(12, tasks=1, steps=5)
    loss = sequence_loss(net.run_sequence(x, y), y)
    slopes = torch.autograd.grad(loss, list(net.parameters()))
    for (name, parameter), slope in zip(net.named_parameters(), map(torch.flatten, slopes), strict=True):
        at = int(slope.abs().argmax())
        ends = []
        for bend in (1e-6, -1e-6):
            with torch.no_grad():
                parameter.view(-1)[at] += bend
                ends.append(float(sequence_loss(net.run_sequence(x, y), y)))
                parameter.view(-1)[at] -= bend
        assert float(slope[at]) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5), name


def test_it_learns_to_answer_the_second_presentation_better_than_any_guess() -> None:
    generator = torch.Generator().manual_seed(0)

    def task(tasks: int) -> tuple[Tensor, Tensor]:
        y = torch.tensor([0, 0, 0, 1, 1, 1])[torch.rand(tasks, 6, generator=generator).argsort(1)]
        centres = torch.randn(tasks, 1, 4, generator=generator) * torch.tensor([1.0, -1.0])[:, None]
        centres = 2 * torch.nn.functional.normalize(centres, dim=-1)
        x = centres.gather(1, y[..., None].expand(-1, -1, 4))
        return x + 0.1 * torch.randn(tasks, 6, 4, generator=generator), one_hot(y, 2).float()

    torch.manual_seed(0)
    net = Mann(4, 2, controller=24, rows=12, width=8, heads=2)
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(250):
        x, y = task(32)
        optimiser.zero_grad()
        sequence_loss(net.run_sequence(x, y), y).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
    x, y = task(500)
    with torch.no_grad():
        first, second, third = accuracy_by_presentation(net.run_sequence(x, y), y).tolist()
    # The class of a first presentation that follows the other class can be told: 3/4 is all that can be had.
    assert first < 0.8
    assert second > 0.9
    assert third > 0.9


def test_options_that_make_no_network_are_refused() -> None:
    for wrong in ({"heads": 0}, {"rows": 3}, {"decay": 1.0}, {"write": "both"}):
        with pytest.raises(MetaDxError, match=next(iter(wrong))) as told:
            MannOptions(**wrong)  # type: ignore[arg-type]
        assert told.value.code == "bad_value"
