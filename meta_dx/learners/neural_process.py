"""Attentive Neural Process, as a classifier: where the uncertainty of every prediction comes from.

Hyunjik Kim, Andriy Mnih, Jonathan Schwarz, Marta Garnelo, Ali Eslami, Dan Rosenbaum, Oriol Vinyals, Yee Whye
Teh: *Attentive Neural Processes*, ICLR 2019, https://arxiv.org/abs/1901.05761; and its simpler forms: Marta
Garnelo et al.: *Neural Processes*, 2018, https://arxiv.org/abs/1807.01622, and *Conditional Neural Processes*,
ICML 2018, https://arxiv.org/abs/1807.01613. The papers' regressor is
:mod:`meta_dx.learners.neural_process_regressor`.

The context (support) is encoded twice: a deterministic path, in which context examples attend to one another
and each target (query) attends to the context, and a latent path, which gives a Gaussian variable z. The
prior q(z|C) sees the context, the posterior q(z|T) also the targets. Training raises the bound of equation 3,
E_q(z|T) [log p(y|x, r, z)] - KL(q(z|T) ‖ q(z|C)); a prediction averages over z drawn from the prior.

The papers report regression. What a classifier that knows no class beforehand makes necessary:

- One z and one r for each class, from the examples of that class alone, by networks that all classes share,
  and one logit for each class: permuting the labels permutes the answer, and any N and K will do. The
  likelihood is categorical.
- z must become surer with more cases, which a mean over cases does not show. Each case gives a Gaussian of its own
  for z, and these are multiplied with a standard normal one: precisions add (Michael Volpp et al., *Bayesian
  Context Aggregation for Neural Processes*, ICLR 2021, https://openreview.net/forum?id=ufZN2-aehFa). With
  ``aggregation = "mean"``, as in the papers, the logarithm of the number of cases stands beside the mean; on a real
  cohort the spread then hardly depended on it, and the epistemic uncertainty rose with the number of cases.
- The decoder adds a residual to the logits of a plain head (its prior mean), and starts near zero. The logits
  are first scaled to be as sure as they are right: by nature those of a nearest-centroid head are nearly level.
- The inner product of query and z, both projected, is an input of the decoder and a term of its answer, and
  the mean of z starts as the projected mean of the class. With the deterministic path on, z is otherwise
  ignored: without these two KL fell below 0.001 nats within 300 steps on a cohort's embeddings.
- Attention is by cosines (:mod:`meta_dx.learners.class_attention`).

Deviations in training, each an option with the papers' value beside it (:class:`NeuralProcessOptions`): free
nats (Diederik P. Kingma et al., *Improved Variational Inference with Inverse Autoregressive Flow*, NeurIPS
2016, https://arxiv.org/abs/1606.04934), a term for the prior's prediction (Andrew Y. K. Foong et
al., *Meta-Learning Stationary Stochastic Process Prediction with Convolutional Neural Processes*, NeurIPS
2020, https://arxiv.org/abs/2007.01332), and episodes that are rotated and made harder
(:mod:`meta_dx.learners.embedding_augmentation`).

The papers have no figure for this classifier; those of the regressor stand in its file. On the rare diseases of
``derm``, 5-way, with 95 % intervals (``docs/results.md``): 1-shot 49.0 (45.3–52.9), 5-shot 64.8 (59.4–70.6).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from meta_dx.episodes.episode import Episode
from meta_dx.learners.base import Capabilities, Head, Metrics, State, mask_absent_classes, query_loss
from meta_dx.learners.baselines import Cl2n, Logistic, SimpleShot
from meta_dx.learners.class_attention import ClassAttention, ClassBlock
from meta_dx.learners.cosine_classifier import CosineClassifier
from meta_dx.learners.embedding_augmentation import classes_pulled_together, rotated
from meta_dx.learners.options import NeuralProcessOptions, PrototypicalOptions
from meta_dx.learners.prototypical import Prototypical, unit_length
from meta_dx.learners.ridge import Ridge

#: The decoder need not tell a probability of 2e-9 from a smaller one.
_LEAST_LOG_P = -20.0
#: At the start: weight of the inner product, and sigma = 0.1 + 0.9 sigmoid(-1) = 0.34.
_FIRST_GAIN = 0.3
_FIRST_RAW_SD = -1.0


class NeuralProcess(Head):
    """Attentive neural process over frozen embeddings, a residual on a plain head's logits.

    Parameters
    ----------
    embedding_size : int
        D.
    base_mean : Tensor, optional, shape (D,)
        Mean embedding of the common diseases' studies; zero if absent. Embeddings are centred by it and
        scaled to length one before anything.
    options : NeuralProcessOptions, optional
        Sizes, paths and objective.
    prototypical : PrototypicalOptions, optional
        Distance and scale of the plain head, where that is ``prototypical``.
    """

    capabilities = Capabilities()
    weight_decay = 0.01
    base_mean: Tensor

    def __init__(
        self,
        embedding_size: int,
        base_mean: Tensor | None = None,
        options: NeuralProcessOptions | None = None,
        prototypical: PrototypicalOptions | None = None,
    ) -> None:
        super().__init__()
        self.options = o = options or NeuralProcessOptions()
        plain = prototypical or PrototypicalOptions()
        self.plain = _plain_head(o.prior_head, embedding_size, base_mean, plain)
        mean = torch.zeros(embedding_size) if base_mean is None else base_mean.detach().clone().float()
        self.register_buffer("base_mean", mean)
        self.noise_size = o.latent_size if o.latent else 0
        self.scale = nn.Parameter(torch.tensor(o.prior_scale or 1.0))
        self.context = _Encoder(embedding_size, o)
        self.key = _two_layers(embedding_size, o.hidden) if o.attention else None
        self.cross = ClassAttention(o.hidden, o.heads) if o.attention else None
        self.latent = _LatentPath(embedding_size, o) if o.latent else None
        self.decoder = _Decoder(embedding_size, o)
        names = [f"plain_{name}" for name in self.plain.state_names if name != "count"]
        names += ["context_key", "context_value", "context_onehot"] if o.attention else ["context_value"]
        names += ["latent_mean", "latent_sd"] if o.latent else []
        self.state_names = (*names, "count")

    def features(self, x: Tensor) -> Tensor:
        """Return CL2N features of embeddings (E, S, D), of length sqrt(D) so that entries are of order 1."""
        return math.sqrt(x.shape[-1]) * unit_length(x - self.base_mean)

    def adapt_tensors(self, support_x: Tensor, support_onehot: Tensor) -> State:
        """Encode the context by both paths.

        Parameters
        ----------
        support_x : Tensor, shape (E, S, D)
            Embeddings.
        support_onehot : Tensor, shape (E, S, N)
            Labels, zero rows where padded.

        Returns
        -------
        State
            The plain head's state under ``plain_…``; ``context_key`` and ``context_value`` (E, S, H) and
            ``context_onehot`` (E, S, N), or without attention ``context_value`` (E, N, H), the mean of each
            class; ``latent_mean`` and ``latent_sd`` (E, N, L) of the prior of z; ``count`` (E, N).
        """
        x = self.features(support_x)
        plain = self.plain.adapt_tensors(support_x, support_onehot)
        state = {f"plain_{name}": value for name, value in plain.items()}
        state["count"] = support_onehot.sum(1)
        value = self.context(x, support_onehot)  # (E, S, H)
        if self.key is None:
            state["context_value"] = _class_mean(value, support_onehot)
        else:
            state.update(context_key=self.key(x), context_value=value, context_onehot=support_onehot)
        if self.latent is not None:
            state["latent_mean"], state["latent_sd"] = self.latent(x, support_onehot)
        return {name: state[name] for name in self.state_names}

    def predict_tensors(self, state: State, query_x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Score queries under z = mean + sd · noise from the prior, shape (E, M, Q, N)."""
        if self.latent is None:
            return self._decode(state, query_x, None)
        z = state["latent_mean"].unsqueeze(1)  # (E, 1, N, L)
        if noise is not None:
            z = z + state["latent_sd"].unsqueeze(1) * noise
        return self._decode(state, query_x, z)

    def attention_tensors(self, state: State, query_x: Tensor) -> Tensor | None:
        """Return the cross-attention's weights within each class, mean over heads, (E, Q, S), or None."""
        if self.key is None or self.cross is None:
            return None
        return self.cross.evidence(
            self.key(self.features(query_x)), state["context_key"], state["context_onehot"]
        )

    def loss(self, episode: Episode, *, generator: torch.Generator | None = None) -> tuple[Tensor, Metrics]:
        """Return the negative bound that meta-training lowers.

        Over all real queries of the batch: the mean over queries and samples of -log p(y|x, r, z), z from the
        posterior, plus the sum of the KL of all classes present divided by the number of queries. That is the
        papers' bound of an episode divided by its targets, as in the authors' code, where every episode has
        as many. As in the bound of *Neural Processes*, the likelihood is that of the new targets alone.

        Parameters
        ----------
        episode : Episode
            Over embeddings.
        generator : torch.Generator, optional
            Source of noise on the CPU. Without it z is the posterior's mean and the episode is taken as it
            is.

        Returns
        -------
        loss : Tensor, scalar
            Nats for each query.
        metrics : dict of str to Tensor
            ``loss``; ``accuracy`` of predictions from the prior, which has not seen the queries' labels;
            ``kl``, nats for each class; ``cross_entropy`` under the posterior. Detached scalars.
        """
        if generator is not None:
            episode = self._augmented(episode, generator)
        if self.latent is None:
            return super().loss(episode)
        state = self.adapt(episode.support)
        mean, sd = self._posterior(episode)
        z = mean.unsqueeze(1)  # (E, 1, N, L)
        if generator is not None:
            z = z + sd.unsqueeze(1) * self._noise(episode, generator)
        cross_entropy = _mean_cross_entropy(self._decode(state, episode.query_x, z), episode)
        kl = gaussian_kl(mean, sd, state["latent_mean"], state["latent_sd"])  # (E, N)
        present = (state["count"] > 0).to(kl.dtype)
        paid = (kl.clamp_min(self.options.free_nats) * present).sum() / episode.query_mask.sum()
        predictive, metrics = self._predictive(state, episode, generator)
        loss = cross_entropy + self.options.kl_weight * paid + self.options.predictive_weight * predictive
        metrics = {
            "loss": loss.detach(),
            "accuracy": metrics["accuracy"],
            "kl": ((kl * present).sum() / present.sum()).detach(),
            "cross_entropy": cross_entropy.detach(),
        }
        return loss, metrics

    def _decode(self, state: State, query_x: Tensor, z: Tensor | None) -> Tensor:
        """Return logits (E, M, Q, N) of queries (E, Q, D) under z (E, M, N, L)."""
        x, count = self.features(query_x), state["count"]
        own = {
            name: state["count" if name == "count" else f"plain_{name}"] for name in self.plain.state_names
        }
        plain = self.plain.predict_tensors(own, query_x)  # (E, 1, Q, N), -inf where absent
        # Absent classes are left out of the product: its gradient there would be 0 times infinity.
        scaled = self.scale * torch.where((count > 0)[:, None, None, :], plain, 0.0)
        log_p = (
            mask_absent_classes(scaled, count).log_softmax(-1).clamp_min(_LEAST_LOG_P).squeeze(1)
        )  # (E, Q, N)
        if self.key is None or self.cross is None:
            r = state["context_value"].unsqueeze(1)  # (E, 1, N, H)
        else:
            r = self.cross(
                self.key(x), state["context_key"], state["context_value"], state["context_onehot"]
            )  # (E, Q, N, H)
        residual = self.decoder(x, r, z, log_p)  # (E, M, Q, N)
        return mask_absent_classes(scaled + residual, count)

    def _posterior(self, episode: Episode) -> tuple[Tensor, Tensor]:
        """Return mean and sd (E, N, L) of z given context and targets."""
        if self.latent is None:
            raise ValueError("a neural process without a latent path has no posterior")
        support = episode.support.onehot()
        hot = nn.functional.one_hot(episode.query_y, support.shape[2]).to(support.dtype)  # (E, Q, N)
        hot = hot * episode.query_mask.unsqueeze(-1)
        x = torch.cat([episode.support_x, episode.query_x], 1)  # (E, S + Q, D)
        mean, sd = self.latent(self.features(x), torch.cat([support, hot], 1))
        return mean, sd

    def _predictive(
        self, state: State, episode: Episode, generator: torch.Generator | None
    ) -> tuple[Tensor, Metrics]:
        """Return -log of the mean probability under the prior; without gradient where it has no weight."""
        weighted = self.options.predictive_weight > 0
        noise = self._noise(episode, generator) if weighted and generator is not None else None
        with torch.set_grad_enabled(weighted and torch.is_grad_enabled()):
            return query_loss(self.predict_tensors(state, episode.query_x, noise), episode)

    def _noise(self, episode: Episode, generator: torch.Generator) -> Tensor:
        noise = self.draw_noise(episode, self.options.samples, generator)
        if noise is None:
            raise ValueError("a neural process without a latent path takes no noise")
        return noise

    def _augmented(self, episode: Episode, generator: torch.Generator) -> Episode:
        if self.options.pull > 0:
            episode = classes_pulled_together(episode, self.options.pull, generator)
        if self.options.rotate:
            episode = rotated(episode, self.base_mean, generator)
        return episode


class _Encoder(nn.Module):
    """Context rows to representations, by self-attention within each class or, without attention, one by one."""

    def __init__(self, size: int, o: NeuralProcessOptions) -> None:
        super().__init__()
        heads = o.heads if o.attention else 0
        self.first = nn.Linear(size, o.hidden)
        self.blocks = nn.ModuleList(ClassBlock(o.hidden, heads) for _ in range(o.blocks))
        self.last = nn.LayerNorm(o.hidden)

    def forward(self, x: Tensor, onehot: Tensor) -> Tensor:
        """Map rows (E, S, D) with labels (E, S, N) to (E, S, H)."""
        x = self.first(x)
        for block in self.blocks:
            x = block(x, onehot)
        representation: Tensor = self.last(x)
        return representation


class _LatentPath(nn.Module):
    """The Gaussian of z for each class; the same network gives prior and posterior."""

    def __init__(self, size: int, o: NeuralProcessOptions) -> None:
        super().__init__()
        self.bayesian = o.aggregation == "bayesian"
        self.encoder = _Encoder(size, o)
        self.hidden = nn.Linear(o.hidden + (0 if self.bayesian else 1), o.hidden)
        self.gaussian = nn.Linear(o.hidden, 2 * o.latent_size)
        self.project = nn.Linear(size, o.latent_size, bias=False)
        with torch.no_grad():
            self.gaussian.bias[o.latent_size :] = _FIRST_RAW_SD

    def forward(self, x: Tensor, onehot: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and sd (E, N, L) of z; the sd of one Gaussian, 0.1 + 0.9 sigmoid, lies between 0.1 and 1."""
        rows = self.encoder(x, onehot)  # (E, S, H)
        if self.bayesian:
            correction, raw = self.gaussian(self.hidden(rows).relu()).chunk(2, -1)  # (E, S, L)
            precision = (0.1 + 0.9 * raw.sigmoid()) ** -2
            total = 1 + onehot.mT @ precision  # of the standard normal z and of each case, (E, N, L)
            return onehot.mT @ (precision * (self.project(x) + correction)) / total, total.rsqrt()
        shots = onehot.sum(1).clamp_min(1).log().unsqueeze(-1)  # (E, N, 1)
        hidden = self.hidden(torch.cat([_class_mean(rows, onehot), shots], -1)).relu()
        correction, raw = self.gaussian(hidden).chunk(2, -1)  # (E, N, L)
        return self.project(_class_mean(x, onehot)) + correction, 0.1 + 0.9 * raw.sigmoid()


class _Decoder(nn.Module):
    """One residual logit for each class, by a network that all classes share.

    Its first layer is a sum of linear maps of what depends on fewer axes, so that only the sum is as large
    as (E, M, Q, N).
    """

    def __init__(self, size: int, o: NeuralProcessOptions) -> None:
        super().__init__()
        self.of_query = nn.Linear(size, o.decoder)
        self.of_context = nn.Linear(o.hidden, o.decoder, bias=False)
        self.of_log_p = nn.Linear(1, o.decoder, bias=False)
        if o.latent:
            self.project = nn.Linear(size, o.latent_size, bias=False)
            self.of_latent = nn.Linear(o.latent_size, o.decoder, bias=False)
            self.of_product = nn.Linear(1, o.decoder, bias=False)
            self.gain = nn.Parameter(torch.tensor(_FIRST_GAIN))
        self.second = nn.Linear(o.decoder, o.decoder)
        self.last = nn.Linear(o.decoder, 1)
        with torch.no_grad():
            self.last.weight.mul_(0.1)
            self.last.bias.zero_()

    def forward(self, x: Tensor, r: Tensor, z: Tensor | None, log_p: Tensor) -> Tensor:
        """Return residuals (E, M, Q, N) from x (E, Q, D), r (E, Q or 1, N, H), z (E, M, N, L), log_p (E, Q, N)."""
        hidden = self.of_query(x).unsqueeze(2) + self.of_context(r) + self.of_log_p(log_p.unsqueeze(-1))
        hidden = hidden.unsqueeze(1)  # (E, 1, Q, N, W)
        if z is None:
            return self._deep(hidden)
        product = self.project(x).unsqueeze(1) @ z.transpose(2, 3) / math.sqrt(z.shape[-1])  # (E, M, Q, N)
        hidden = hidden + self.of_latent(z).unsqueeze(2) + self.of_product(product.unsqueeze(-1))
        residual: Tensor = self._deep(hidden) + self.gain * product
        return residual

    def _deep(self, hidden: Tensor) -> Tensor:
        answer: Tensor = self.last(self.second(hidden.relu()).relu()).squeeze(-1)
        return answer


def gaussian_kl(mean: Tensor, sd: Tensor, prior_mean: Tensor, prior_sd: Tensor) -> Tensor:
    """Return KL(N(mean, sd²) ‖ N(prior_mean, prior_sd²)) in nats, summed over the last axis."""
    ratio = (sd / prior_sd).square()
    distance = ((mean - prior_mean) / prior_sd).square()
    nats: Tensor = (ratio - 1 - ratio.log() + distance).sum(-1) / 2
    return nats


def _mean_cross_entropy(logits: Tensor, episode: Episode) -> Tensor:
    """Return -log p of the true classes, mean over the M samples and the real queries."""
    mask = episode.query_mask.unsqueeze(1)  # (E, 1, Q)
    label = episode.query_y[:, None, :, None].expand(-1, logits.shape[1], -1, 1)
    log_p = logits.log_softmax(-1).gather(-1, label).squeeze(-1).masked_fill(~mask, 0.0)  # (E, M, Q)
    return -log_p.mean(1).sum() / mask.sum()


def _class_mean(rows: Tensor, onehot: Tensor) -> Tensor:
    """Return the mean (E, N, H) of each class's rows (E, S, H); zero for absent classes."""
    return onehot.transpose(1, 2) @ rows / onehot.sum(1).clamp_min(1).unsqueeze(-1)


def _two_layers(size: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, hidden))


def _plain_head(name: str, size: int, mean: Tensor | None, prototypical: PrototypicalOptions) -> Head:
    """Build the plain head; where training has not named the best one, logistic regression."""
    if name == "prototypical":
        return Prototypical(size, prototypical.distance, prototypical.learned_scale)
    heads: dict[str, type[Cl2n]] = {"simpleshot": SimpleShot, "ridge": Ridge, "cosine": CosineClassifier}
    return heads.get(name, Logistic)(size, mean)
