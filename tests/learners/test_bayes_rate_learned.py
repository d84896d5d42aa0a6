"""MANN and Meta-LSTM, meta-trained on families of tasks whose Bayes rule is known, reach its accuracy.

The rule knows the family and sees the same support sets. It and the learner answer the same queries, so that the
interval of what is missing to it is one of paired differences.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from meta_dx.episodes.episode import Episode
from meta_dx.learners.base import Grads, Metrics
from meta_dx.learners.body_options import MetaLstmOptions
from meta_dx.learners.classifier import Classifier
from meta_dx.learners.mann import Mann, accuracy_by_presentation
from meta_dx.learners.meta_lstm import MetaLstm, sgd_twin

#: What may be missing to Bayes' rule with its whole interval, and what is missing at least where something is wrong.
NEAR, FAR = 0.01, 0.03
#: Standard errors within which a mean is what a formula says.
SURE = 4.0
CLASSES = 2


def phi(z: Tensor | float) -> Tensor:
    """The distribution function of the normal distribution."""
    return (1 + torch.erf(torch.as_tensor(z, dtype=torch.float64) / math.sqrt(2))) / 2


def right(answers: Tensor, y: Tensor) -> Tensor:
    """Share of right answers of each episode."""
    return (answers.argmax(-1) == y).double().mean(1)


def interval(values: Tensor, errors: float = 1.96) -> tuple[float, float]:
    """Interval of the mean of independent values: 95 %, or so many standard errors."""
    half = errors * values.std() / len(values) ** 0.5
    return float(values.mean() - half), float(values.mean() + half)


def assert_mean(values: Tensor, expected: float) -> None:
    low, high = interval(values, SURE)
    assert low < expected < high, (low, expected, high)


def assert_reached(learner: Tensor, rule: Tensor) -> None:
    """Nothing more than ``NEAR`` is missing; and nobody is better than Bayes' rule, or it would not be the rule."""
    _, high = interval(rule - learner)
    assert 0 < high < NEAR, interval(rule - learner)


def assert_far(other: Tensor, rule: Tensor) -> None:
    assert interval(rule - other)[0] > FAR, interval(rule - other)


def meta_train(
    learner: nn.Module,
    gradients: Callable[[], tuple[Grads, Metrics]],
    steps: int,
    clip: Callable[[Grads], Grads],
    rate: float = 0.01,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Adam, its rate falling to zero in half a cosine."""
    optimiser = torch.optim.Adam(learner.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        for name, gradient in clip(gradients()[0]).items():
            learner.get_parameter(name).grad = gradient
        optimiser.step()
        schedule.step()
        after()


def shortened(gradients: Grads) -> Grads:
    length = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    return {name: gradient / length.clamp_min(1.0) for name, gradient in gradients.items()}


# MANN. Four prototypes are known, the unit vectors; a task gives two of them to its two classes, drawn anew.

SYMBOLS, SIGMA, SHOTS = 4, 0.5, 2
GIVEN = torch.tensor(list(itertools.permutations(range(SYMBOLS), CLASSES)))  # (A, N): all that a task may be


def symbols(tasks: int, queries: int, generator: torch.Generator, shots: int = SHOTS) -> Episode:
    mine = GIVEN[torch.randint(len(GIVEN), (tasks,), generator=generator)]

    def drawn(rows: int) -> tuple[Tensor, Tensor, Tensor]:
        y = torch.arange(CLASSES).repeat_interleave(rows).expand(tasks, -1)
        noise = SIGMA * torch.randn(*y.shape, SYMBOLS, generator=generator)
        return torch.eye(SYMBOLS)[mine.gather(1, y)] + noise, y, torch.ones(y.shape, dtype=torch.bool)

    return Episode(*drawn(shots), *drawn(queries), torch.ones(tasks, CLASSES, dtype=torch.bool))


def told(x: Tensor) -> Tensor:
    """Log-likelihood (…, A, N) of examples in each class of each possible task, less what all have in common."""
    return x.double()[..., GIVEN] / SIGMA**2


def own(x: Tensor, y: Tensor) -> Tensor:
    """Log-likelihood (E, T, A) of labelled examples under each possible task."""
    return told(x).gather(-1, y[..., None, None].expand(-1, -1, len(GIVEN), 1)).squeeze(-1)


def rule_of_queries(episode: Episode) -> Tensor:
    """Log-probabilities (E, Q, N) of the classes of the queries: the mean over all tasks that may be."""
    belief = own(episode.support_x, episode.support_y).sum(1)  # (E, A)
    return (belief[:, None, :, None] + told(episode.query_x)).logsumexp(2).log_softmax(-1)


def rule_of_a_sequence(x: Tensor, y: Tensor) -> Tensor:
    """Log-probabilities (E, T, N) at each step, from what was shown before; each class is shown equally often."""
    shown, onehot = own(x, y), one_hot(y, CLASSES)
    belief = shown.cumsum(1) - shown  # (E, T, A)
    left = onehot.sum(1, keepdim=True) - onehot.cumsum(1) + onehot
    return ((belief[..., None] + told(x)).logsumexp(2) + left.log()).log_softmax(-1)


def in_random_order(episode: Episode, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    x = torch.cat([episode.support_x, episode.query_x], 1)
    order = torch.rand(x.shape[:2], generator=generator).argsort(1)
    y = torch.cat([episode.support_y, episode.query_y], 1).gather(1, order)
    return x.gather(1, order[..., None].expand_as(x)), y


def assert_calibrated(log_probabilities: Tensor, y: Tensor) -> None:
    """A posterior is right as often as it says, in all and wherever it says it; a wrong one is not."""
    sure = log_probabilities.exp().amax(-1)
    hit = (log_probabilities.argmax(-1) == y).double()
    parts = [(low, high) for low, high in itertools.pairwise([0.5, 0.6, 0.7, 0.8, 0.9, 1.0])]
    for low, high in [(0.5, 1.0), *parts]:
        chosen = (sure >= low) & (sure <= high)
        error = (sure[chosen] * (1 - sure[chosen])).sum().sqrt() / chosen.sum()
        assert abs(float((hit - sure)[chosen].mean())) < SURE * float(error), (low, high)


def test_the_rules_of_the_symbols_are_right_as_often_as_they_say() -> None:
    generator = torch.Generator().manual_seed(0)
    episode = symbols(4000, 4, generator)
    assert_calibrated(rule_of_queries(episode), episode.query_y)
    x, y = in_random_order(episode, generator)
    assert_calibrated(rule_of_a_sequence(x, y), y)
    # With many cases the two prototypes are known, and so is the rate: they are the root of two apart.
    many = symbols(4000, 20, generator, shots=30)
    assert_mean(right(rule_of_queries(many), many.query_y), float(phi(math.sqrt(2) / 2 / SIGMA)))


def remembers_by_its_memory_only(net: Mann) -> None:
    """Make the LSTM a feed-forward controller: its cell forgets at once, and it is not told what it was."""
    size = net.to_heads.in_features
    with torch.no_grad():
        net.from_past.weight[:size] = 0.0
        net.from_past.weight[:, :size] = 0.0
        net.from_input.weight[:size] = 0.0
        net.from_input.bias[:size] = -30.0


def test_mann_reaches_the_bayes_rate_of_queries_through_its_memory_alone() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    net = Mann(SYMBOLS, CLASSES, controller=32, rows=16, width=12, heads=2, objective="query")
    remembers_by_its_memory_only(net)
    meta_train(
        net,
        lambda: net.meta_gradients(symbols(32, 4, generator)),
        steps=4000,
        clip=shortened,
        after=lambda: remembers_by_its_memory_only(net),
    )
    asked = symbols(4000, 4, torch.Generator().manual_seed(2))
    y, rule = asked.query_y, right(rule_of_queries(asked), asked.query_y)
    with torch.no_grad():
        state = net.adapt(asked.support)
        assert_reached(right(net.predict(state, asked.query).logits[:, 0], y), rule)
        emptied = {n: torch.zeros_like(v) if n in ("memory", "reads") else v for n, v in state.items()}
        assert_mean(right(net.predict(emptied, asked.query).logits[:, 0], y), 1 / CLASSES)
    # What knows nothing of the prototypes does not get there: the nearest mean of the support, the nearest example.
    means = asked.support_x.view(-1, CLASSES, SHOTS, SYMBOLS).mean(2)
    assert_far(right(-torch.cdist(asked.query_x, means), y), rule)
    nearest = torch.cdist(asked.query_x, asked.support_x).argmin(-1)
    assert_far(right(one_hot(asked.support_y.gather(1, nearest), CLASSES), y), rule)


def test_mann_reaches_the_bayes_rate_at_every_presentation_of_a_sequence() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    net = Mann(SYMBOLS, CLASSES, controller=32, rows=16, width=12, heads=2, objective="sequence")
    meta_train(
        net,
        lambda: net.meta_gradients(symbols(32, 2, generator), generator=generator),
        steps=4000,
        clip=shortened,
        rate=0.02,
    )
    test = torch.Generator().manual_seed(2)
    x, y = in_random_order(symbols(8000, 2, test), test)
    onehot = one_hot(y, CLASSES)
    with torch.no_grad():
        found = net.run_sequence(x, onehot.float())
    rule = rule_of_a_sequence(x, y)
    assert_reached(right(found, y), right(rule, y))
    assert_mean(right(found[:, :1], y[:, :1]), 1 / CLASSES)  # nothing tells the first label
    ours, theirs = (accuracy_by_presentation(answers, onehot) for answers in (found, rule))
    assert (theirs[1:] - theirs[:-1] > 0).all()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0.02)
    assert theirs[1] - ours[0] > FAR


# Meta-LSTM. Two classes at u and -u; of eight features, four tell (u is normal there) and four that are six times as
# large are noise. Bayes' rule is linear: all cases together are the mean of u, the noise is left out.

FEATURES, TELL, CASES, ASKED = 8, 4, 5, 20
NOISE = torch.tensor([0.5] * TELL + [3.0] * (FEATURES - TELL)).double()
PRIOR = torch.tensor([0.7] * TELL + [0.0] * (FEATURES - TELL)).double()  # of u, in units of the noise


def opposites(tasks: int, generator: torch.Generator, cases: int = CASES) -> tuple[Episode, Tensor]:
    """Episodes, and their u (E, D) in units of the noise."""
    u = torch.randn(tasks, FEATURES, generator=generator).double() * PRIOR

    def drawn(rows: int) -> tuple[Tensor, Tensor, Tensor]:
        y = torch.arange(CLASSES).repeat_interleave(rows).expand(tasks, -1)
        noise = torch.randn(*y.shape, FEATURES, generator=generator)
        x = ((2 * y - 1)[..., None] * u[:, None] + noise) * NOISE
        return x.float(), y, torch.ones(y.shape, dtype=torch.bool)

    return Episode(*drawn(cases), *drawn(ASKED), torch.ones(tasks, CLASSES, dtype=torch.bool)), u


def mean_of_opposites(episode: Episode) -> Tensor:
    """All support rows turned to the second class, their mean (E, D) in units of the noise."""
    return ((2 * episode.support_y - 1)[..., None] * episode.support_x / NOISE).mean(1)


def rule_of_opposites(episode: Episode) -> Tensor:
    """Log-odds of the second class are w ⋅ x with these w (E, D): a normal posterior of each feature by itself."""
    rows = episode.support_x.shape[1]
    precision = PRIOR**-2 + rows  # of u, after the support; where there is no signal it is infinite
    return 2 * rows * mean_of_opposites(episode) / precision / (1 + 1 / precision) / NOISE


def rate(weights: Tensor, bias: Tensor | float, u: Tensor) -> Tensor:
    """Expected accuracy (E,) of deciding by the sign of w ⋅ x + b, which is normal in each class."""
    middle, width = (weights * NOISE * u).sum(1), (weights * NOISE).norm(dim=1)
    return (phi((middle + bias) / width) + phi((middle - bias) / width)) / 2


def line_of(state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    weights, bias = state["linear.weight"].detach().double(), state["linear.bias"].detach().double()
    return weights[:, 1] - weights[:, 0], bias[:, 1] - bias[:, 0]


def test_the_rule_of_the_opposites_is_right_as_often_as_it_says_and_as_the_formula_says() -> None:
    episode, u = opposites(4000, torch.Generator().manual_seed(0))
    weights = rule_of_opposites(episode)
    odds = (episode.query_x * weights[:, None]).sum(-1)
    answers = torch.stack([-odds / 2, odds / 2], -1)
    assert_calibrated(answers.log_softmax(-1), episode.query_y)
    assert_mean(right(answers, episode.query_y) - rate(weights, 0.0, u), 0.0)


def test_meta_lstm_reaches_the_bayes_rate_where_gradient_descent_stays_far_from_it() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    network, options = Classifier(nn.Identity(), FEATURES, CLASSES), MetaLstmOptions(steps=3, move_bias=-2.0)
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    episode, u = opposites(600, torch.Generator().manual_seed(2))
    rule = rate(rule_of_opposites(episode), 0.0, u)
    for step in (0.003, 0.03, 0.3, 3.0):
        twin = sgd_twin(network, options, rate=step, learned_rates=False)
        assert_far(rate(*line_of(twin.adapt(episode.support)), u), rule)
    learner = MetaLstm(network, CLASSES, options)
    meta_train(
        learner,
        lambda: learner.meta_gradients(opposites(4, generator)[0]),
        steps=1800,
        clip=learner.clipped,
    )
    assert_reached(rate(*line_of(learner.adapt(episode.support)), u), rule)
    # One case of each class would not do.
    one, of_one = opposites(600, torch.Generator().manual_seed(2), cases=1)
    assert_far(rate(rule_of_opposites(one), 0.0, of_one), rule)
