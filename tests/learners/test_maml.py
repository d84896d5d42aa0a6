"""MAML, ANIL and Proto-MAML against hand-written loops of autograd.grad and cases worked by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from meta_dx.episodes.episode import Episode
from meta_dx.errors import MetaDxError
from meta_dx.learners.base import Grads
from meta_dx.learners.body_options import MamlOptions, ProtoMamlOptions
from meta_dx.learners.classifier import Classifier
from meta_dx.learners.maml import Anil, Maml, ProtoMaml, prototype_layer
from meta_dx.learners.maml_plus_plus import step_loss_weights
from meta_dx.learners.prototypical import Prototypical
from tests.learners.episodes import only, random_episode

exact = {"rtol": 1e-10, "atol": 1e-10}
close = {"rtol": 1e-8, "atol": 1e-9}
F = nn.functional
Weights = dict[str, Tensor]
BN = "encoder.1"
MODES = ("support", "batch", "stored", "per_step")
LEARNERS = (Maml, Anil, ProtoMaml)


def pictures(seed: int, shots: list[list[int]], queries: int = 2) -> Episode:
    """Episodes over pictures of 5 x 5."""
    episode = random_episode(seed, shots=shots, queries=queries, size=25)
    return episode.with_x(
        episode.support_x.unflatten(-1, (1, 5, 5)), episode.query_x.unflatten(-1, (1, 5, 5))
    )


def classifier(ways: int | None, seed: int = 0) -> Classifier:
    """A small network with worn batch norm: weights and running statistics are not those of a new one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Dropout(0.5), nn.AvgPool2d(3)]
        network = Classifier(nn.Sequential(*layers, nn.Flatten()), 4, ways).double()
        norm = network.encoder[1]
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.normal_()
        norm.running_mean.normal_(std=0.3)
        norm.running_var.uniform_(0.5, 2.0)
    return network


def learner(kind: type[Maml], ways: int | None = 3, vectorised: bool | None = None, **options: Any) -> Maml:
    options = {"inner_rate": 0.4, "steps": 2, "test_steps": 3, **options}
    network = classifier(None if kind is ProtoMaml else ways)
    chosen = ProtoMamlOptions if kind is ProtoMaml else MamlOptions
    made = kind(network, chosen(**options), vectorised=vectorised).double()
    generator = torch.Generator().manual_seed(1)
    for name, value in [*made.named_parameters(), *made.named_buffers()]:
        if "step_norm" in name or name.startswith("rates"):  # differ from step to step, above zero
            value.data.mul_(0.6 + 0.8 * torch.rand(value.shape, generator=generator, dtype=torch.float64))
    return made


def reference_forward(w: Weights, x: Tensor, use: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Any]:
    z = F.conv2d(x, w["encoder.0.weight"], w["encoder.0.bias"])
    var, mean = torch.var_mean(z, (0, 2, 3), correction=0)
    mean, var = (mean, var) if use is None else use
    z = (z - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
    z = z * w[f"{BN}.weight"][:, None, None] + w[f"{BN}.bias"][:, None, None]
    return F.avg_pool2d(z.tanh(), 3).flatten(1), (mean, var)


class Reference:
    """The inner loop written out once more, for one task, with nothing of the learner but its numbers."""

    def __init__(self, made: Maml) -> None:
        self.kind, self.options, self.annealing = type(made), made.options, made.annealing
        self.p = {n: p.detach().clone().requires_grad_() for n, p in made.named_parameters()}
        self.b = dict(made.named_buffers())

    def normal(self, step: int, weights: Weights, x: Tensor, testing: bool) -> tuple[Weights, Any]:
        mode, row = self.options.batch_norm, min(step, self.options.steps)
        if mode == "stored":
            return weights, (
                self.b["network.encoder.1.running_mean"],
                self.b["network.encoder.1.running_var"],
            )
        if mode == "per_step":
            own = {
                f"{BN}.weight": self.p["step_norm.scale.0"][row],
                f"{BN}.bias": self.p["step_norm.shift.0"][row],
            }
            use = (self.b["step_norm.mean_0"][row], self.b["step_norm.var_0"][row]) if testing else None
            return {**weights, **own}, use
        return weights, None

    def embed(self, weights: Weights, x: Tensor, step: int, testing: bool) -> Tensor:
        weights, use = self.normal(step, weights, x, testing)
        return reference_forward(weights, x, use)[0]

    def queries(self, weights: Weights, sx: Tensor, qx: Tensor, step: int, testing: bool) -> Tensor:
        weights, use = self.normal(step, weights, qx, testing)
        if self.options.batch_norm == "support":
            use = reference_forward(weights, sx, None)[1]
        return reference_forward(weights, qx, use)[0] @ weights["linear.weight"].T + weights["linear.bias"]

    def rate(self, step: int, name: str) -> Tensor | float:
        if not self.options.learned_rates:
            return self.options.inner_rate
        layers = ["linear"] if self.kind is Anil else ["encoder.0", "encoder.1", "linear"]
        if self.options.batch_norm == "per_step":
            layers.remove("encoder.1")
        row = min(step, self.options.steps - 1)
        return self.p["rates.rates"][row, layers.index(name.rpartition(".")[0])]

    def trajectory(self, x: Tensor, y: Tensor, ways: int, steps: int, testing: bool = False) -> list[Weights]:
        w = {n.removeprefix("network."): p for n, p in self.p.items() if n.startswith("network.")}
        adapted = [n for n in w if not (n.startswith(BN) and self.options.batch_norm == "per_step")]
        if self.kind is Anil:
            adapted = ["linear.weight", "linear.bias"]
        if self.kind is ProtoMaml:
            z = self.embed(w, x, 0, testing)
            c = torch.stack([z[y == n].mean(0) for n in range(ways)])
            s = self.p["log_scale"].exp() if self.options.learned_scale else 1.0
            w.update({"linear.weight": s * 2 * c, "linear.bias": -s * (c * c).sum(1)})
            adapted += ["linear.weight", "linear.bias"]
        found = [w]
        for step in range(steps):
            # The inner gradient at these numbers, as a function of them: by copies in value, chained by hand.
            at = {n: found[-1][n] + torch.zeros_like(found[-1][n]) for n in adapted}
            now = {**found[-1], **at}
            scores = self.embed(now, x, step, testing) @ now["linear.weight"].T + now["linear.bias"]
            loss = F.nll_loss(scores.log_softmax(1), y)
            inner = torch.autograd.grad(loss, list(at.values()), create_graph=True)
            if self.options.order == "first":
                inner = tuple(g.detach() for g in inner)
            moved = {n: now[n] - self.rate(step, n) * g for n, g in zip(adapted, inner, strict=True)}
            found.append({**now, **moved})
        return found

    def loss(self, episode: Episode, e: int) -> Tensor:
        one = only(episode, e)
        sx, sy, qx, qy = one.support_x[0], one.support_y[0], one.query_x[0], one.query_y[0]
        steps = self.options.steps
        found = self.trajectory(sx, sy, one.class_mask.shape[1], steps)
        losses = [F.cross_entropy(self.queries(w, sx, qx, k, False), qy) for k, w in enumerate(found)]
        if not self.options.multi_step_loss:
            return losses[-1]
        low = (1 - self.annealing) / steps
        return low * sum(losses[1:-1]) + (1 - low * (steps - 1)) * losses[-1]

    def gradients(self, episode: Episode) -> Grads:
        count = len(episode.support_x)
        loss = sum(self.loss(episode, e) for e in range(count)) / count
        found = torch.autograd.grad(loss, list(self.p.values()), allow_unused=True)
        return {
            n: torch.zeros_like(p) if g is None else g
            for (n, p), g in zip(self.p.items(), found, strict=True)
        }


def compare(found: Grads, expected: Grads) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, **exact, msg=lambda told, name=name: f"{name}: {told}")


def variants() -> list[Any]:
    found = [
        pytest.param(kind, {"batch_norm": mode}, id=f"{kind.__name__}-{mode}")
        for kind in LEARNERS
        for mode in MODES
        if (kind, mode) != (Anil, "per_step")
    ]
    found.append(pytest.param(ProtoMaml, {"learned_scale": False}, id="ProtoMaml-paper"))
    extra = {"learned_rates": True, "multi_step_loss": True, "steps": 3}
    found += [
        pytest.param(kind, {**extra, "batch_norm": mode}, id=f"{kind.__name__}-{mode}-plus-plus")
        for kind, mode in ((Maml, "per_step"), (Maml, "batch"), (Anil, "support"), (ProtoMaml, "per_step"))
    ]
    return found + [
        pytest.param(kind, {"order": "first", **more}, id=f"{kind.__name__}-first-order{len(more)}")
        for kind in LEARNERS
        for more in ({}, {"learned_rates": True, "multi_step_loss": True})
    ]


@pytest.mark.parametrize("vectorised", [False, True])
@pytest.mark.parametrize(("kind", "options"), variants())
def test_meta_gradients_equal_a_hand_written_loop(
    kind: type[Maml], options: dict[str, Any], vectorised: bool
) -> None:
    made = learner(kind, vectorised=vectorised, **options)
    made.annealing = 0.25
    episode = pictures(0, [[2, 2, 2]] * 3)
    found, metrics = made.meta_gradients(episode)
    reference = Reference(made)
    compare(found, reference.gradients(episode))
    expected = sum(reference.loss(episode, e) for e in range(3)) / 3
    torch.testing.assert_close(metrics["loss"], expected.detach(), **exact)
    assert any(float(g.abs().max()) > 1e-3 for n, g in found.items() if n.startswith("network"))


@pytest.mark.parametrize("kind", LEARNERS)
def test_ragged_tasks_count_as_each_one_alone_also_where_tasks_could_be_batched(kind: type[Maml]) -> None:
    made = learner(kind, vectorised=True)
    shots = [[1, 3, 2], [2, 2], [4, 1, 1]] if kind is ProtoMaml else [[1, 3, 2], [2, 1, 1], [4, 1, 1]]
    episode = pictures(1, shots)
    compare(made.meta_gradients(episode)[0], Reference(made).gradients(episode))
    together = made.predict(made.adapt(episode.support), episode.query).probabilities()
    for e, counts in enumerate(shots):
        one = only(episode, e)
        alone = made.predict(made.adapt(one.support), one.query).probabilities()
        torch.testing.assert_close(together[e : e + 1, : alone.shape[1], : len(counts)], alone, **close)
        assert (together[e, : alone.shape[1], len(counts) :] == 0).all()


def test_absent_classes_leave_no_nan_when_tasks_are_batched() -> None:
    made = learner(ProtoMaml, vectorised=True)
    episode = pictures(2, [[2, 2]] * 2)
    wide = replace(episode, class_mask=torch.tensor([[True, True, False]] * 2))
    compare(made.meta_gradients(wide)[0], made.meta_gradients(episode)[0])


@pytest.mark.parametrize(
    ("kind", "options"), [v.values for v in variants()], ids=[str(v.id) for v in variants()]
)
def test_adapted_weights_and_answers_equal_a_hand_written_loop(
    kind: type[Maml], options: dict[str, Any]
) -> None:
    made = learner(kind, **options)
    episode = pictures(3, [[2, 1, 1], [2, 2, 1]])
    state = made.adapt(episode.support)
    found = made.predict(state, episode.query).logits[:, 0]
    reference = Reference(made)
    for e in range(2):
        one = only(episode, e)
        *_, last = reference.trajectory(one.support_x[0], one.support_y[0], 3, 3, testing=True)
        expected = reference.queries(last, one.support_x[0], one.query_x[0], 3, True)
        torch.testing.assert_close(found[e], expected.detach(), **exact)
        fixed = BN if options.get("batch_norm") == "per_step" else "none"
        for name, value in last.items():
            if not name.startswith(fixed):
                torch.testing.assert_close(state[name][e], value.detach(), **exact)


def one_number_task(rate: float, order: str) -> tuple[Maml, Episode]:
    """One support row x = 1 of class 0 and one query the same; a linear layer at zero."""
    made = Maml(Classifier(nn.Identity(), 1, 2), MamlOptions(order=order, inner_rate=rate, steps=1)).double()  # type: ignore[arg-type]
    for parameter in made.parameters():
        parameter.data.zero_()
    x, y, real = torch.ones(1, 1, 1).double(), torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1).bool()
    return made, Episode(x, y, real, x, y, real, torch.ones(1, 2).bool())


@pytest.mark.parametrize("rate", [0.1, 0.7, 2.0])
def test_one_step_on_one_number_has_the_gradient_worked_out_by_hand(rate: float) -> None:
    # At zero both classes have 1/2: the inner gradient of weight and bias is (-1/2, 1/2), and after the step
    # the logits of x = 1 are (rate, -rate). There the loss has the gradient c (1, -1), c = -sigmoid(-2 rate).
    # The Hessian at zero is [[1/4, -1/4], [-1/4, 1/4]] over classes times [[1, 1], [1, 1]] over (weight, bias);
    # (1, -1) x (1, 1) is an eigenvector of eigenvalue 1/2 * 2 = 1. So second order is (1 - rate) times first.
    c = -1 / (1 + math.exp(2 * rate))
    for order, factor in (("first", 1.0), ("second", 1 - rate)):
        made, episode = one_number_task(rate, order)
        for value in made.meta_gradients(episode)[0].values():
            expected = factor * c * torch.tensor([1.0, -1.0]).double()
            torch.testing.assert_close(value.flatten(), expected, **exact)


def test_first_order_is_the_query_gradient_at_the_adapted_weights() -> None:
    made = learner(Maml, order="first", batch_norm="batch", test_steps=2)
    episode = pictures(4, [[2, 2, 2]])
    state = made.adapt(episode.support)
    there = learner(Maml, order="first", batch_norm="batch", steps=0)
    there.network.load_state_dict({n: v[0] for n, v in state.items()}, strict=False)
    compare(made.meta_gradients(episode)[0], there.meta_gradients(episode)[0])


def test_anil_leaves_the_encoder_as_it_is_and_moves_the_last_layer() -> None:
    made = learner(Anil)
    state = made.adapt(pictures(5, [[2, 2, 2]]).support)
    for name, parameter in made.network.named_parameters():
        same = torch.equal(state[name][0], parameter)
        assert same == name.startswith("encoder."), name


def test_proto_maml_without_steps_is_the_prototypical_classifier() -> None:
    made = ProtoMaml(Classifier(nn.Identity(), 8, None), MamlOptions(steps=0, test_steps=0))
    plain = Prototypical(8, learned_scale=False).double()
    episode = random_episode(6, shots=[[1, 4, 2], [3, 3], [2, 1, 1, 5]])
    found = made.predict(made.adapt(episode.support), episode.query).probabilities()
    expected = plain.predict(plain.adapt(episode.support), episode.query).probabilities()
    real = episode.query_mask
    torch.testing.assert_close(found[real], expected[real], rtol=1e-10, atol=1e-14)


def test_the_layer_of_prototypes_is_twice_the_mean_and_minus_its_squared_length() -> None:
    weight, bias = prototype_layer(
        torch.tensor([[1.0, 3.0], [3.0, 1.0], [0.0, 5.0]]), torch.tensor([0, 0, 2]), 3
    )
    assert weight.tolist() == [[4, 4], [0, 0], [0, 10]]
    assert bias.tolist() == [-8, -math.inf, -25]


def test_a_learned_scale_starts_where_that_of_prototypical_networks_does() -> None:
    made = ProtoMaml(Classifier(nn.Identity(), 8, None), ProtoMamlOptions(steps=0, test_steps=0))
    plain = Prototypical(8, learned_scale=True).double()
    episode = random_episode(6, shots=[[1, 4, 2], [3, 3]])
    found = made.double().predict(made.adapt(episode.support), episode.query).probabilities()
    expected = plain.predict(plain.adapt(episode.support), episode.query).probabilities()
    real = episode.query_mask
    torch.testing.assert_close(found[real], expected[real], rtol=1e-7, atol=1e-9)  # the start is a float32


@pytest.mark.parametrize(("kind", "equivariant"), [(Maml, False), (Anil, False), (ProtoMaml, True)])
def test_permuting_labels_permutes_the_probabilities_of_proto_maml_only(
    kind: type[Maml], equivariant: bool
) -> None:
    made, episode, to = learner(kind), pictures(7, [[2, 3, 2]]), torch.tensor([2, 0, 1])
    renamed = replace(episode, support_y=to[episode.support_y])
    before, after = (made.predict(made.adapt(e.support), e.query).probabilities() for e in (episode, renamed))
    assert made.capabilities.label_equivariant == equivariant
    assert torch.allclose(after[..., to], before, rtol=1e-8, atol=1e-8) == equivariant


@pytest.mark.parametrize("kind", LEARNERS)
def test_the_order_of_the_support_changes_nothing(kind: type[Maml]) -> None:
    made, episode = learner(kind), pictures(8, [[2, 3, 2]])
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    shuffled = replace(episode, support_x=episode.support_x[:, order], support_y=episode.support_y[:, order])
    before, after = (made.predict(made.adapt(e.support), e.query).logits for e in (episode, shuffled))
    torch.testing.assert_close(after, before, **close)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", LEARNERS)
def test_a_query_influences_another_in_batch_mode_only(kind: type[Maml], mode: Any) -> None:
    if (kind, mode) == (Anil, "per_step"):
        with pytest.raises(MetaDxError, match="anil adapts nothing in the encoder"):
            learner(kind, batch_norm=mode)
        return
    made, episode = learner(kind, batch_norm=mode), pictures(9, [[2, 2, 2]])
    query_x = episode.query_x.clone()
    query_x[:, 1:] = 3 * query_x[:, 1:].flip(1) + 1
    state = made.adapt(episode.support)
    before, after = (
        made.predict(state, e.query).logits[:, :, 0] for e in (episode, replace(episode, query_x=query_x))
    )
    assert made.capabilities.transductive == (mode == "batch")
    assert torch.allclose(before, after, rtol=1e-12, atol=1e-12) == (mode != "batch")


def test_without_batch_norm_nothing_is_transductive() -> None:
    assert not Maml(
        Classifier(nn.Identity(), 4, 2), MamlOptions(batch_norm="batch")
    ).capabilities.transductive


@pytest.mark.parametrize("kind", [Maml, Anil])
def test_another_number_of_classes_is_refused(kind: type[Maml]) -> None:
    made, episode = learner(kind), pictures(10, [[2, 2]])
    calls: list[Callable[[], Any]] = [
        lambda: made.adapt(episode.support),
        lambda: made.meta_gradients(episode),
    ]
    for call in calls:
        with pytest.raises(MetaDxError, match="built for 3 classes") as told:
            call()
        assert told.value.code == "other_ways"


@pytest.mark.parametrize("kind", LEARNERS)
def test_adapting_works_without_gradients_and_changes_nothing_in_the_learner(kind: type[Maml]) -> None:
    made, episode = learner(kind), pictures(11, [[2, 2, 2]])
    before = {name: value.clone() for name, value in made.state_dict().items()}
    expected = made.predict(made.adapt(episode.support), episode.query).logits
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            loaned = replace(episode, support_x=episode.support_x + 0)  # made in this mode
            found = made.predict(made.adapt(loaned.support), loaned.query).logits
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    made.meta_gradients(episode)
    for name, value in made.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in made.parameters())


def test_dropout_of_the_network_is_off_also_in_training() -> None:
    made, episode = learner(Maml).train(), pictures(12, [[2, 2, 2]])
    seen = torch.random.get_rng_state()
    compare(made.meta_gradients(episode)[0], made.meta_gradients(episode)[0])
    assert torch.equal(torch.random.get_rng_state(), seen)


def test_gradients_come_under_the_names_asked_for() -> None:
    made, episode = learner(Maml), pictures(13, [[2, 2, 2]])
    alone = nn.Parameter(torch.ones(2, dtype=torch.float64))
    asked = {"a": made.network.encoder[0].weight, "b": alone}
    found, _ = made.meta_gradients(episode, parameters=asked)
    assert set(found) == {"a", "b"}
    torch.testing.assert_close(found["a"], made.meta_gradients(episode)[0]["network.encoder.0.weight"])
    assert not found["b"].any()


def test_losses_of_all_steps_fade_to_the_last_ones() -> None:
    assert step_loss_weights(0.0, 4) == [0.25] * 4
    assert step_loss_weights(1.0, 4) == [0, 0, 0, 1]
    assert step_loss_weights(0.6, 4) == pytest.approx([0.1, 0.1, 0.1, 0.7])
    assert step_loss_weights(0.3, 1) == [1]


def test_running_statistics_of_a_step_are_those_of_the_batches_seen_at_it() -> None:
    made, episode = learner(Maml, batch_norm="per_step"), pictures(14, [[2, 2, 2], [2, 1, 2]])
    reference, expected = Reference(made), []
    for e in range(2):
        one = only(episode, e)
        found = reference.trajectory(one.support_x[0], one.support_y[0], 3, 2)
        rows = [(one.support_x[0], 0), (one.support_x[0], 1), (one.query_x[0], 2)]
        convolved = [
            F.conv2d(x, found[k]["encoder.0.weight"], found[k]["encoder.0.bias"]).detach() for x, k in rows
        ]
        expected.append(
            torch.stack([torch.stack([z.mean((0, 2, 3)), z.var((0, 2, 3), correction=0)]) for z in convolved])
        )
    mean, var = torch.stack(expected).mean(0).unbind(1)  # (steps + 1, C)
    before = made.step_norm.mean_0.clone()
    made.update_statistics(episode, momentum=1.0)
    torch.testing.assert_close(made.step_norm.mean_0, mean, **exact)
    torch.testing.assert_close(made.step_norm.var_0, var, **exact)
    again = learner(Maml, batch_norm="per_step")
    again.update_statistics(episode, momentum=0.1)
    torch.testing.assert_close(again.step_norm.mean_0, 0.9 * before + 0.1 * mean, **exact)


@pytest.mark.parametrize(
    "wrong",
    [
        {"order": "third"},
        {"inner_rate": 0.0},
        {"steps": -1},
        {"batch_norm": "train"},
        {"steps": 0, "learned_rates": True},
    ],
)
def test_impossible_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(MetaDxError) as told:
        MamlOptions(**wrong)
    assert told.value.code == "bad_value"


def gaussian_tasks(seed: int, tasks: int, shots: int, queries: int) -> Episode:
    """Two classes at plus and minus a random direction of length 1.5, unit covariance: Bayes is Phi(1.5)."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    direction = drawn(tasks, 1, 2)
    direction = 1.5 * direction / direction.norm(dim=-1, keepdim=True)

    def rows(each: int) -> tuple[Tensor, Tensor, Tensor]:
        y = torch.arange(2).repeat_interleave(each).repeat(tasks, 1)
        return drawn(tasks, 2 * each, 2) + (1 - 2 * y.unsqueeze(-1)) * direction, y, torch.ones_like(y).bool()

    return Episode(*rows(shots), *rows(queries), torch.ones(tasks, 2).bool())


@pytest.mark.parametrize("kind", LEARNERS)
def test_a_trained_learner_comes_near_the_bayes_rate(kind: type[Maml]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Classifier(nn.Linear(2, 2), 2, None if kind is ProtoMaml else 2).double()
    made = kind(network, MamlOptions(inner_rate=0.3, steps=2, test_steps=2), vectorised=True)
    optimizer = torch.optim.Adam(made.parameters(), 0.03)

    def accuracy() -> float:
        test = gaussian_tasks(999, 100, 20, 50)
        answer = made.predict(made.adapt(test.support), test.query).probabilities().argmax(-1)
        return float((answer == test.query_y).double().mean())

    for step in range(150):
        gradients, _ = made.meta_gradients(gaussian_tasks(step, 8, 20, 15))
        for name, parameter in made.named_parameters():
            parameter.grad = gradients[name]
        optimizer.step()
    bayes = 0.5 * (1 + math.erf(1.5 / math.sqrt(2)))
    assert bayes - 0.015 < accuracy() < bayes + 0.015
