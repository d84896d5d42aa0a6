"""Latent Embedding Optimization (LEO).

Andrei A. Rusu, Dushyant Rao, Jakub Sygnowski, Oriol Vinyals, Razvan Pascanu, Simon Osindero, Raia Hadsell:
*Meta-Learning with Latent Embedding Optimization*, ICLR 2019, https://arxiv.org/abs/1807.05960; the authors'
code is https://github.com/google-deepmind/leo.

An encoder and a relation network turn the support examples of each class into a Gaussian over a small latent
code (equations 1 and 2), and a linear decoder turns the code into a Gaussian over the class's weights in a softmax
classifier (equation 3). The inner loop descends the support loss (equation 4) in the *latent* space (equation 5), then
takes a few steps on the decoded weights themselves. Meta-training lowers the query loss with penalties on the codes
and on the networks (equations 6 and 7), differentiating through the whole inner loop: second order.

The inner gradients are written out: that of softmax regression, pulled back through the linear decoder.
Autograd through them is exactly the second-order meta-gradient, and they are operations that ONNX has, so
``adapt.onnx`` adapts in latent space inside the graph.

From the authors' code, where the paper is silent: linear layers without bias, features of unit length,
standard deviation exp(s) - 1 (weights: exp(s) - 1 + sqrt(2 / (N + D))) and never below 1e-10, a rate for
each latent dimension and each feature, dropout of the features wherever they are used in training, penalties
as means over their elements. At test every sample is its mean.

Departures:

- Any number of shots, unbalanced too. With K equal in every class these are the paper's means and sums:
  the mean over pairs in equation 2 weighs every *class* alike, then every example within its class; in
  equation 4 every row weighs 1/K of its class, which at test is what the authors' code does.
- One code and one set of weights a class in training, as in the paper; the authors' code draws K of each and
  averages. The divergence in equation 6 is the closed form, not its estimate from the sample.
- The classes present are counted for each episode, so N may differ from one to the next.
- Sampled weights can make the inner loop diverge. The authors then take the gradient of the weight penalty
  alone, at 1e-4; so does this, and the metrics of that step are those of the means.

Not reproduced on a benchmark of the paper. On the rare diseases of ``derm``, 5-way, with 95 % intervals
(``docs/results.md``): 1-shot 48.3 (44.5–52.4), 5-shot 62.2 (57.1–67.8).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from meta_dx.episodes.episode import Episode, Query
from meta_dx.learners.base import Capabilities, Grads, Metrics, State, mask_absent_classes, query_loss
from meta_dx.learners.baselines import Cl2n
from meta_dx.learners.options import LeoOptions

_SMALLEST_STD = 1e-10
_FAR_BELOW = -1e9
_DECAY_INSTEAD = 1e-4  # of the weights, as the gradient of a step that has none
#: Numbers in one block of the pair table, 4 MB of float32: larger blocks leave the cache and are slower.
_PAIRS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Draws:
    """All that is random in one pass of meta-training, T latent and F fine-tuning steps.

    Parameters
    ----------
    latent : Tensor, shape (E, N, L)
        Standard normal, for the codes.
    weight : Tensor, shape (T + 1, E, N, D)
        Standard normal, for the weights each time they are decoded.
    encoder : Tensor, shape (E, S, D)
        Dropout factors of the features that are encoded: 0 or 1 / (1 - rate).
    support : Tensor, shape (T + F, E, S, D)
        The same for the support loss of each step.
    query : Tensor, shape (E, Q, D)
        The same for the queries.
    """

    latent: Tensor
    weight: Tensor
    encoder: Tensor
    support: Tensor
    query: Tensor


@dataclass(frozen=True)
class Adapted:
    """What the inner loop gives: weights (E, N, D) and, each (E, N, L), the codes that it went through.

    Parameters
    ----------
    weight : Tensor
        θ', after both loops.
    mean, std : Tensor
        μ and σ of equation 2.
    start, end : Tensor
        z and z' of equation 5.
    """

    weight: Tensor
    mean: Tensor
    std: Tensor
    start: Tensor
    end: Tensor


class Leo(Cl2n):
    """LEO on embeddings of a frozen encoder.

    The authors clip each gradient by value and then each parameter's gradient by norm before the optimiser's
    step, after averaging over tasks: :meth:`clipped` does so.

    Parameters
    ----------
    embedding_size : int
        D.
    options : LeoOptions, optional
        Sizes, steps, rates and penalties.
    base_mean : Tensor, optional, shape (D,)
        Mean embedding of the common diseases' studies, subtracted before features are scaled to unit length;
        zero if absent, as in the paper.
    """

    capabilities = Capabilities()
    state_names = ("weight", "count")

    def __init__(
        self, embedding_size: int, options: LeoOptions | None = None, base_mean: Tensor | None = None
    ) -> None:
        super().__init__(embedding_size, base_mean)
        self.options = options or LeoOptions()
        latent = self.options.latent_size
        self.encoder = _glorot(latent, embedding_size)
        self.relation_first = _glorot(2 * latent, 2 * latent)
        self.relation_second = _glorot(2 * latent, 2 * latent)
        self.relation_third = _glorot(2 * latent, 2 * latent)
        self.decoder = _glorot(2 * embedding_size, latent)
        self.latent_rate = nn.Parameter(torch.full((latent,), self.options.latent_rate))
        self.finetuning_rate = nn.Parameter(torch.full((embedding_size,), self.options.finetuning_rate))

    def adapt_tensors(self, support_x: Tensor, support_onehot: Tensor) -> State:
        """Run both inner loops on the means, without noise or dropout.

        Parameters
        ----------
        support_x : Tensor, shape (E, S, D)
            Embeddings. Work grows with S² and memory with S: N = 100, K = 20, D = 640 on one CPU thread took
            0.7 s and 12 MB in ONNX Runtime, 3 s and 33 MB in torch.
        support_onehot : Tensor, shape (E, S, N)
            Labels, zero rows where padded.

        Returns
        -------
        State
            ``weight`` (E, N, D), zero for absent classes; ``count`` (E, N).
        """
        found = self.inner_loop(self.normalised(support_x), support_onehot)
        return {"weight": found.weight, "count": support_onehot.sum(1)}

    def predict_tensors(self, state: State, query_x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return w_n · x, shape (E, 1, Q, N)."""
        logits = self.normalised(query_x) @ state["weight"].transpose(1, 2)  # (E, Q, N)
        return mask_absent_classes(logits.unsqueeze(1), state["count"])

    def inner_loop(self, x: Tensor, onehot: Tensor, draws: Draws | None = None) -> Adapted:
        """Algorithm 1, lines 7 to 14, and the steps on the weights that follow.

        Parameters
        ----------
        x : Tensor, shape (E, S, D)
            Normalised features of the support rows.
        onehot : Tensor, shape (E, S, N)
            Their labels, zero rows where padded.
        draws : Draws, optional
            Samples and dropout of meta-training; means and no dropout without.

        Returns
        -------
        Adapted
        """
        steps = range(self.options.latent_steps)
        offset = _weight_offset(onehot, x.shape[-1])
        mean, std = self.encode(x if draws is None else x * draws.encoder, onehot)
        z = start = mean if draws is None else mean + std * draws.latent
        weight, slope = self._decode(z, offset, draws, 0)
        for step in steps:
            uphill = _support_gradient(_dropped(x, draws, step), weight, onehot)
            z = z - self.latent_rate * self._through_decoder(uphill, slope)
            weight, slope = self._decode(z, offset, draws, step + 1)
        end = z
        for step in range(self.options.finetuning_steps):
            uphill = _support_gradient(_dropped(x, draws, len(steps) + step), weight, onehot)
            weight = weight - self.finetuning_rate * uphill
        return Adapted(weight, mean, std, start, end)

    def encode(self, x: Tensor, onehot: Tensor) -> tuple[Tensor, Tensor]:
        """Return μ and σ of each class's code (equation 2), each (E, N, L); absent classes have μ = 0.

        The first layer over a pair of codes is the sum of a layer over each, and the last layer is linear, so
        it is applied to the mean over pairs: only the middle layer sees the S × S pairs.
        """
        codes = x @ self.encoder.T  # (E, S, L)
        left, right = self.relation_first.chunk(2, dim=1)
        within = _within_class(onehot)  # (E, S, N)
        present = (onehot.sum(1) > 0).to(x.dtype).sum(-1)[:, None, None]  # (E, 1, 1)
        share = within.sum(-1, keepdim=True) / present.clamp_min(1)  # (E, S, 1), sums to one
        related = _mean_over_pairs(codes @ left.T, codes @ right.T, self.relation_second, share)  # (E, S, 2L)
        mean, raw = (within.transpose(1, 2) @ related @ self.relation_third.T).chunk(2, dim=-1)
        return mean, _std(raw)

    def _decode(
        self, z: Tensor, offset: Tensor, draws: Draws | None, step: int
    ) -> tuple[Tensor, Tensor | None]:
        """Return the weights (E, N, D) of codes (equation 3) and their slope in the decoder's second half."""
        mean, raw = (z @ half.T for half in self.decoder.chunk(2))
        if draws is None:
            return mean, None
        noise = draws.weight[step]
        slope = noise * raw.exp() * (raw.exp() - 1 + offset >= _SMALLEST_STD)
        return mean + _std(raw, offset) * noise, slope

    def _through_decoder(self, uphill: Tensor, slope: Tensor | None) -> Tensor:
        """Turn the gradient by the weights (E, N, D) into that by the codes (E, N, L)."""
        of_mean, of_std = self.decoder.chunk(2)  # (D, L) each
        by_code = uphill @ of_mean
        return by_code if slope is None else by_code + (uphill * slope) @ of_std

    def draw(self, episode: Episode, generator: torch.Generator) -> Draws:
        """Draw what :meth:`meta_loss` needs from a generator of the CPU, the same on every device."""
        e, s, d = episode.support_x.shape
        n, q = episode.class_mask.shape[1], episode.query_x.shape[1]
        steps, keep = self.options.latent_steps, 1 - self.options.dropout

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(episode.support_x)

        def dropout(*shape: int) -> Tensor:
            return ((torch.rand(shape, generator=generator) < keep) / keep).to(episode.support_x)

        return Draws(
            latent=normal(e, n, self.options.latent_size),
            weight=normal(steps + 1, e, n, d),
            encoder=dropout(e, s, d),
            support=dropout(steps + self.options.finetuning_steps, e, s, d),
            query=dropout(e, q, d),
        )

    def loss(self, episode: Episode, *, generator: torch.Generator | None = None) -> tuple[Tensor, Metrics]:
        """Return equation 6; in evaluation mode the query loss of the means alone.

        Samples and dropout come from ``generator``, on the CPU; without it training mode uses the means.
        Metrics as in :meth:`meta_loss`; in evaluation mode ``loss`` and ``accuracy`` only.
        """
        if not self.training:
            return super().loss(episode)
        return self.meta_loss(episode, None if generator is None else self.draw(episode, generator))

    def meta_loss(self, episode: Episode, draws: Draws | None) -> tuple[Tensor, Metrics]:
        """Return the query loss plus all penalties (equations 6 and 7).

        Returns
        -------
        loss : Tensor, scalar
            What meta-training lowers.
        metrics : dict of str to Tensor
            ``loss`` (the query loss alone, nats), ``accuracy``, and before their factors ``kl``,
            ``encoder_penalty`` and ``orthogonality``; detached scalars.
        """
        onehot, options = episode.support.onehot(), self.options
        found = self.inner_loop(self.normalised(episode.support_x), onehot, draws)
        query_x = self.normalised(episode.query_x)
        query = Query(query_x if draws is None else query_x * draws.query, episode.query_mask)
        logits = (query.x @ found.weight.transpose(1, 2)).unsqueeze(1)  # (E, 1, Q, N)
        count = onehot.sum(1)
        loss, metrics = query_loss(mask_absent_classes(logits, count), episode)
        kl = _mean_over_classes(_divergence(found.mean, found.std), count)
        pull = _mean_over_classes((found.end.detach() - found.start).square(), count)
        orthogonality = correlation_penalty(self.decoder.T)
        size = torch.stack([layer.square().sum() for layer in self._layers()]).sum() / 2
        penalties = options.kl_weight * kl + options.encoder_penalty * pull
        penalties = penalties + options.l2_penalty * size + options.orthogonality_penalty * orthogonality
        extra = {"kl": kl, "encoder_penalty": pull, "orthogonality": orthogonality}
        return loss + penalties, metrics | {name: value.detach() for name, value in extra.items()}

    def meta_gradients(
        self,
        episode: Episode,
        *,
        parameters: Mapping[str, nn.Parameter] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Grads, Metrics]:
        """Return the gradients of equation 6, or of the weight penalty where the inner loop diverged."""
        gradients, metrics = super().meta_gradients(episode, parameters=parameters, generator=generator)
        if all(bool(g.isfinite().all()) for g in gradients.values()):
            return gradients, metrics
        layers = {id(layer) for layer in self._layers()}
        chosen = dict(self.named_parameters()) if parameters is None else parameters
        decay = {n: (_DECAY_INSTEAD if id(p) in layers else 0.0) * p.detach() for n, p in chosen.items()}
        with torch.no_grad():
            return decay, self.meta_loss(episode, None)[1]

    def _layers(self) -> list[Tensor]:
        relation = [self.relation_first, self.relation_second, self.relation_third]
        return [self.encoder, *relation, self.decoder]

    def clipped(self, gradients: Grads) -> Grads:
        """Clip every number to ±``clip_value``, then every parameter's gradient to length ``clip_norm``."""
        value, norm = self.options.clip_value, self.options.clip_norm
        bounded = {name: g.clamp(-value, value) for name, g in gradients.items()}
        return {name: g * (norm / g.norm().clamp_min(norm)) for name, g in bounded.items()}


def correlation_penalty(rows: Tensor) -> Tensor:
    """Return the mean square of C - I, C the cosines between rows (equation 7)."""
    unit = rows / rows.norm(dim=1, keepdim=True)
    identity = torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
    penalty: Tensor = (unit @ unit.T - identity).square().mean()
    return penalty


def _glorot(outputs: int, inputs: int) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(outputs, inputs)))


def _std(raw: Tensor, offset: Tensor | float = 0.0) -> Tensor:
    std: Tensor = raw.exp() - 1 + offset
    return std.clamp_min(_SMALLEST_STD)


def _weight_offset(onehot: Tensor, size: int) -> Tensor:
    """Return the standard deviation at which weights start, (E, 1, 1): Glorot's for N classes present."""
    ways = (onehot.sum(1) > 0).to(onehot.dtype).sum(-1)
    return (2 / (ways + size)).sqrt()[:, None, None]


def _within_class(onehot: Tensor) -> Tensor:
    """Return 1/K where a row is of a class, else zero: (E, S, N)."""
    return onehot / onehot.sum(1, keepdim=True).clamp_min(1)


def _dropped(x: Tensor, draws: Draws | None, step: int) -> Tensor:
    return x if draws is None else x * draws.support[step]


def _support_gradient(x: Tensor, weight: Tensor, onehot: Tensor) -> Tensor:
    """Return the gradient of equation 4 by the weights, (E, N, D); zero for absent classes."""
    absent = (onehot.sum(1, keepdim=True) == 0).to(x.dtype) * _FAR_BELOW  # (E, 1, N)
    p = (x @ weight.transpose(1, 2) + absent).softmax(-1)  # (E, S, N)
    row = _within_class(onehot).sum(-1, keepdim=True)  # (E, S, 1), zero where padded
    gradient: Tensor = (row * (p - onehot)).transpose(1, 2) @ x
    return gradient


def _mean_over_pairs(left: Tensor, right: Tensor, layer: Tensor, share: Tensor) -> Tensor:
    """Return for each row i the mean over partners j, weighted by ``share``, of the middle layer's answer.

    Parameters
    ----------
    left, right : Tensor, shape (E, S, H)
        The first layer's answer for a row as first and as second of a pair.
    layer : Tensor, shape (H, H)
        The middle layer.
    share : Tensor, shape (E, S, 1)
        Weight of each partner.

    Returns
    -------
    Tensor, shape (E, S, H)
    """
    exporting = torch.compiler.is_exporting()
    if exporting:  # a Scan that keeps what a gradient needs cannot be exported
        left, right, layer, share = (tensor.detach() for tensor in (left, right, layer, share))

    def block(some: Tensor) -> Tensor:  # (E, c, H) to (E, c, H)
        pairs = ((some.unsqueeze(2) + right.unsqueeze(1)).relu() @ layer.T).relu()  # (E, c, S, H)
        return (share.transpose(1, 2).unsqueeze(1) @ pairs).squeeze(2)

    if exporting:
        from torch._higher_order_ops.scan import scan  # private: only where it is needed

        # One ONNX Scan over rows: memory linear in S, and S stays dynamic.
        row_of = left.transpose(0, 1)  # (S, E, H)
        counter = 0.0 * share.sum((0, 1, 2))
        rows: Tensor
        _, rows = scan(
            lambda carry, row: (carry.clone(), block(row.unsqueeze(1)).squeeze(1)), counter, row_of
        )
        return rows.transpose(0, 1)
    tasks, examples, size = left.shape
    at_once = max(1, _PAIRS_AT_ONCE // max(1, tasks * examples * size))
    rows = torch.zeros_like(left)  # filled in place: a list of small pieces kept 2 GB of holes between them
    for first in range(0, examples, at_once):
        rows[:, first : first + at_once] = block(left[:, first : first + at_once])
    return rows


def _divergence(mean: Tensor, std: Tensor) -> Tensor:
    """Return the divergence of N(μ, σ²) from N(0, 1), element by element, nats."""
    return 0.5 * (mean.square() + std.square() - 1) - std.log()


def _mean_over_classes(values: Tensor, count: Tensor) -> Tensor:
    """Return the mean of (E, N, L) over L and the classes present, then over episodes."""
    present = (count > 0).to(values.dtype)  # (E, N)
    return ((values.mean(-1) * present).sum(1) / present.sum(1)).mean()
