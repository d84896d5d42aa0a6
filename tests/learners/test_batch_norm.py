"""Batch norm with an explicit mode, against torch's own and against plain loops of autograd.grad."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from meta_dx.learners.batch_norm import EpisodicBatchNorm, Statistics, episodic_batch_norm, statistics

close = {"rtol": 1e-12, "atol": 1e-12}
exact = {"rtol": 1e-10, "atol": 1e-10}
either_kernel = pytest.mark.parametrize("fused", [False, True])


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def worn(layer: nn.Module, size: int) -> nn.Module:
    """A batch-norm layer with weights and running statistics that are not those of a new one."""
    layer = layer.double()
    layer.load_state_dict(
        {
            "weight": 1 + 0.3 * numbers(1, size),
            "bias": numbers(2, size),
            "running_mean": numbers(3, size),
            "running_var": 0.5 + numbers(4, size).square(),
            "num_batches_tracked": torch.tensor(3),
        }
    )
    return layer


@either_kernel
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm1d(3), (7, 3)),
        (nn.BatchNorm2d(3, eps=1e-2), (5, 3, 4, 6)),
        (nn.BatchNorm3d(3), (2, 3, 4, 2, 3)),
    ],
)
def test_batch_and_stored_statistics_give_what_torch_gives_in_train_and_eval(
    layer: nn.Module, shape: tuple[int, ...], fused: bool
) -> None:
    layer, x = worn(layer, 3), numbers(5, *shape)
    ours = episodic_batch_norm(nn.Sequential(layer))
    running = ours[0].running_mean.clone()
    for mode in (False, True):  # torch moves its running statistics when training
        with statistics(ours, stored=not mode, fused=fused):
            torch.testing.assert_close(ours(x), layer.train(mode)(x), **close)
    torch.testing.assert_close(ours[0].running_mean, running, rtol=0, atol=0)


def test_a_single_value_a_channel_is_normalised_to_the_shift_also_by_torchs_kernel() -> None:
    ours = episodic_batch_norm(nn.Sequential(worn(nn.BatchNorm2d(3), 3)))
    with statistics(ours, fused=True):
        torch.testing.assert_close(ours(numbers(0, 1, 3, 1, 1)).flatten(), ours[0].bias.detach(), **close)


def test_statistics_of_the_support_keep_queries_apart_and_those_of_the_batch_do_not() -> None:
    ours = episodic_batch_norm(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))).double()
    support, query, other = numbers(0, 4, 2, 5, 5), numbers(1, 3, 2, 5, 5), numbers(2, 3, 2, 5, 5)
    other[0] = query[0]
    record: Statistics = {}
    with statistics(ours, record=record):
        normal = ours(support)
    var, mean = torch.var_mean(ours[0](support), (0, 2, 3), correction=0)
    torch.testing.assert_close(record["1"], (mean, var), **close)
    with statistics(ours, use=record):
        torch.testing.assert_close(ours(support), normal, **close)
        torch.testing.assert_close(ours(query)[0], ours(other)[0], rtol=0, atol=0)
    assert not torch.allclose(ours(query)[0], ours(other)[0])


def test_outside_the_block_the_layer_is_back_at_the_statistics_of_its_batch() -> None:
    ours = episodic_batch_norm(nn.Sequential(worn(nn.BatchNorm2d(3), 3)))
    x = numbers(0, 4, 3, 2, 2)
    before = ours(x)
    with pytest.raises(RuntimeError), statistics(ours, stored=True, fused=True):
        raise RuntimeError
    torch.testing.assert_close(ours(x), before, rtol=0, atol=0)
    assert not ours[0].fused
    assert isinstance(ours[0], EpisodicBatchNorm)


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)]
        return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(12, 4)).double()


def second_order_loop(net: nn.Module, xs: Tensor, ys: Tensor, fused: bool = False) -> list[Tensor]:
    """The gradient through one inner step of 0.4, task by task with autograd.grad."""
    parameters, total = dict(net.named_parameters()), 0.0
    for x, y in zip(xs, ys, strict=True):
        with statistics(net, fused=fused):
            loss = nn.functional.cross_entropy(functional_call(net, parameters, (x,)), y)
            inner = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
            moved = {n: p - 0.4 * g for (n, p), g in zip(parameters.items(), inner, strict=True)}
            total = total + nn.functional.cross_entropy(functional_call(net, moved, (x.flip(0),)), y)
    return list(torch.autograd.grad(total, list(parameters.values())))  # type: ignore[arg-type]


def test_second_order_gradients_are_exact_under_vmap_of_grad_and_in_a_loop_by_either_kernel() -> None:
    xs, ys = numbers(0, 3, 5, 1, 6, 6), torch.tensor([[0, 1, 2, 3, 1]] * 3)
    expected = second_order_loop(network(), xs, ys)  # torch's own layers
    ours = episodic_batch_norm(network())
    parameters = dict(ours.named_parameters())

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(functional_call(ours, weights, (x,)), y)

    def adapted(x: Tensor, y: Tensor) -> Tensor:
        inner = torch.func.grad(loss)(parameters, x, y)
        return loss({n: p - 0.4 * inner[n] for n, p in parameters.items()}, x.flip(0), y)

    batched = torch.autograd.grad(vmap(adapted)(xs, ys).sum(), list(parameters.values()))
    for found in (batched, second_order_loop(ours, xs, ys), second_order_loop(ours, xs, ys, fused=True)):
        for one, right in zip(found, expected, strict=True):
            torch.testing.assert_close(one, right, **exact)


def test_gradients_flow_through_recorded_statistics() -> None:
    ours = episodic_batch_norm(network())
    support, query = numbers(0, 5, 1, 6, 6), numbers(1, 2, 1, 6, 6)

    def answer(x: Tensor) -> Tensor:
        record: Statistics = {}
        with statistics(ours, record=record):
            ours(x)
        with statistics(ours, use=record):
            return ours(query).square().sum()

    assert torch.autograd.gradcheck(answer, support.requires_grad_(), atol=1e-6)
