"""LEO word by word: an explicit table of pairs, one task at a time, inner gradients by autograd."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, relu

from meta_dx.episodes.episode import Episode
from meta_dx.learners.leo import Draws, Leo


def paper_code(head: Leo, x: Tensor, y: Tensor, ways: int) -> tuple[Tensor, Tensor]:
    """Equation 2 word by word: every pair of examples is put through the three layers."""
    code = x @ head.encoder.T
    mean, std = [], []
    for n in range(ways):
        over_classes = []
        for m in range(ways):
            pairs = [
                torch.cat([code[i], code[j]]) for i in torch.where(y == n)[0] for j in torch.where(y == m)[0]
            ]
            hidden = relu(torch.stack(pairs) @ head.relation_first.T)
            hidden = relu(hidden @ head.relation_second.T)
            over_classes.append((hidden @ head.relation_third.T).mean(0))
        both = torch.stack(over_classes).mean(0)
        mean.append(both[: len(both) // 2])
        std.append((both[len(both) // 2 :].exp() - 1).clamp(min=1e-10))
    return torch.stack(mean), torch.stack(std)


def plain_loss(head: Leo, episode: Episode, draws: Draws | None) -> tuple[Tensor, list[Tensor]]:
    """Algorithm 1 on each task alone, without padding, inner gradients by autograd with create_graph."""
    options, losses, weights = head.options, [], []
    size = len(head.base_mean)
    kls, pulls, asked = [], [], 0
    for e in range(len(episode.class_mask)):
        ways = int(episode.class_mask[e].sum())
        s, q = episode.support_mask[e], episode.query_mask[e]

        def unit(v: Tensor) -> Tensor:
            return torch.nn.functional.normalize(v - head.base_mean, dim=-1)

        x, y, query = unit(episode.support_x[e][s]), episode.support_y[e][s], unit(episode.query_x[e][q])
        shots = torch.bincount(y, minlength=ways).double()

        def decode(z: Tensor, step: int, ways: int = ways, e: int = e) -> Tensor:
            both = z @ head.decoder.T
            if draws is None:
                return both[:, :size]
            std = (both[:, size:].exp() - 1 + math.sqrt(2 / (ways + size))).clamp(min=1e-10)
            return both[:, :size] + std * draws.weight[step, e, :ways]

        def fit(w: Tensor, step: int, x: Tensor = x, y: Tensor = y, s: Tensor = s, e: int = e) -> Tensor:
            seen = x if draws is None else x * draws.support[step, e][s]
            return (cross_entropy(seen @ w.T, y, reduction="none") / shots[y]).sum()  # noqa: B023

        mean, std = paper_code(head, x if draws is None else x * draws.encoder[e][s], y, ways)
        z = start = mean if draws is None else mean + std * draws.latent[e, :ways]
        w = decode(z, 0)
        for step in range(options.latent_steps):
            (slope,) = torch.autograd.grad(fit(w, step), z, create_graph=True)
            z = z - head.latent_rate * slope
            w = decode(z, step + 1)
        end = z
        for step in range(options.finetuning_steps):
            (slope,) = torch.autograd.grad(fit(w, options.latent_steps + step), w, create_graph=True)
            w = w - head.finetuning_rate * slope
        seen = query if draws is None else query * draws.query[e][q]
        losses.append(cross_entropy(seen @ w.T, episode.query_y[e][q], reduction="sum"))
        asked += int(q.sum())
        normal = torch.distributions.Normal
        kls.append(
            torch.distributions.kl_divergence(
                normal(mean, std), normal(torch.zeros(()), torch.ones(()))
            ).mean()
        )
        pulls.append((end.detach() - start).square().mean())
        weights.append(w)
    layers = (head.encoder, head.relation_first, head.relation_second, head.relation_third, head.decoder)
    loss = torch.stack(losses).sum() / asked
    loss = loss + options.kl_weight * torch.stack(kls).mean()
    loss = loss + options.encoder_penalty * torch.stack(pulls).mean()
    loss = loss + options.l2_penalty * sum(0.5 * layer.square().sum() for layer in layers)
    rows = head.decoder.T
    c = torch.stack([torch.stack([a @ b / (a.norm() * b.norm()) for b in rows]) for a in rows])
    return loss + options.orthogonality_penalty * (c - torch.eye(len(rows))).square().mean(), weights
