"""Memory-augmented neural network with least-recently-used access.

Adam Santoro, Sergey Bartunov, Matthew Botvinick, Daan Wierstra, Timothy Lillicrap: *One-shot Learning with
Memory-Augmented Neural Networks* (ICML 2016 as *Meta-Learning with Memory-Augmented Neural Networks*),
https://arxiv.org/abs/1605.06065

A recurrent network reads a sequence of examples, each with the label of the example *before* it, and answers
the class of each example as it comes. The LSTM controller writes what it saw into an external memory, into
the rows that were used least or read last, and reads by cosine similarity, so that the label that comes one
step late can be bound to its example and found again when that class returns. Nothing but this state adapts:
the weights are the same for every task.

Letters of the paper: controller state (h_t, c_t), key k_t (one for each read head), memory M_t, read weights
w^r, usage weights w^u, least-used weights w^lu, write weights w^w, decay γ, gate α, number of reads n.
Equation 2: cosine K(k_t, M_t(i)). Equation 3: w^r = softmax of K over the rows. Equation 4: r_t = Σ_i w^r(i)
M_t(i). Equation 5: w^u_t = γ w^u_{t-1} + w^r_t + w^w_t, summed over the heads. Equation 6: w^lu is one in the n
rows of least usage. Equation 7: w^w_t = σ(α) w^r_{t-1} + (1 - σ(α)) w^lu_{t-1}. Equation 8: M_t(i) = M_{t-1}(i) +
w^w_t(i) k_t, after the least used row has been set to zero. The answer is softmax(W o_t), o_t = (h_t, r_t).

Where the paper is silent: keys pass through tanh; α comes from the controller, one for each head; memory,
usage, read weights and controller start at zero; rows of equal usage are taken from the first on (rounding
may choose another of two *equal* rows, which changes no answer: reading does not see the order of rows); the
cosine's denominator is sqrt(|k|² |M(i)|² + 1e-6), so that an empty row has similarity zero and a finite
gradient. Known re-implementations differ from equation 8 by a write vector of its own (``write = "own"`` here)
and from equation 6 by one row for each head.

Beyond the paper, for episodes with a support and a query set: the support is read as one sequence; then every
query forks from that one state, makes one step, and what it writes is thrown away, so queries never influence
one another. Support rows come class by class in an episode and are therefore interleaved: all first
examples in the order of the classes, then all second ones. The published protocol is :meth:`Mann.run_sequence`.

On Omniglot, 5 classes, 1692 test classes (``docs/reproduction.md``), after 21,230 of the paper's 100,000 steps, the
paper's figure in brackets: presentation 1 28.92 ± 1.18 (36.4), 2 78.90 ± 1.15 (82.8), 3 84.86 ± 1.02 (91.0), 4 87.64 ±
0.93 (92.6), 5 89.40 ± 0.87 (94.9), 10 90.54 ± 0.82 (98.1).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from meta_dx.episodes.episode import Episode, Support
from meta_dx.errors import MetaDxError
from meta_dx.learners.base import Capabilities, Head, Metrics, State, mask_absent_classes

_TINY = 1e-6


class Mann(Head):
    """LSTM with an external memory, over embeddings or flattened pixels.

    Parameters
    ----------
    embedding_size : int
        D, size of an example (400 for the paper's 20 × 20 pixels).
    ways : int
        N.
    controller : int
        Size of the LSTM.
    rows, width : int
        Form of the memory.
    heads : int
        n, number of read heads.
    decay : float
        γ of equation 5.
    write : {"key", "own"}
        What is written: the key, as in equation 8, or a vector of its own.
    objective : {"query", "sequence"}
        What :meth:`loss` lowers: the error of the forked queries, which is what an episode is judged by, or
        of every step of a sequence of all rows in random order, as the paper does.
    """

    capabilities = Capabilities(fixed_ways=True, order_invariant=False, label_equivariant=False)
    state_names = ("memory", "usage", "read_weights", "reads", "hidden", "cell", "label", "count")

    def __init__(
        self,
        embedding_size: int,
        ways: int,
        *,
        controller: int = 200,
        rows: int = 128,
        width: int = 40,
        heads: int = 4,
        decay: float = 0.99,
        write: Literal["key", "own"] = "key",
        objective: Literal["query", "sequence"] = "query",
    ) -> None:
        super().__init__()
        self.ways, self.rows, self.width, self.heads, self.decay = ways, rows, width, heads, decay
        self.write, self.objective = write, objective
        vectors = 1 if write == "key" else 2
        self.from_input = nn.Linear(embedding_size + ways, 4 * controller)
        self.from_past = nn.Linear(controller + heads * width, 4 * controller, bias=False)
        self.to_heads = nn.Linear(controller, heads * (vectors * width + 1))
        self.to_logits = nn.Linear(controller + heads * width, ways)

    def start(self, like: Tensor) -> State:
        """Return the empty state of ``like.shape[0]`` sequences, without ``count``."""
        size = self.from_past.in_features - self.heads * self.width
        shapes = {
            "memory": (self.rows, self.width),
            "usage": (self.rows,),
            "read_weights": (self.heads, self.rows),
            "reads": (self.heads * self.width,),
            "hidden": (size,),
            "cell": (size,),
            "label": (self.ways,),
        }
        return {name: like.new_zeros(like.shape[0], *shape) for name, shape in shapes.items()}

    def step(self, drive: Tensor, state: State) -> State:
        """Make one step of equations 2 to 8.

        Parameters
        ----------
        drive : Tensor, shape (E, 4 H)
            ``from_input`` of the example and the label before it: what they add to the LSTM's gates.
        state : State
            Before the step; ``label`` is not used.

        Returns
        -------
        State
            After the step, with the same ``label``.
        """
        memory, before = state["memory"], state["read_weights"]  # (E, L, W), (E, R, L)
        gates = drive + self.from_past(torch.cat([state["hidden"], state["reads"]], 1))
        forget, enter, leave, update = gates.chunk(4, 1)
        cell = forget.sigmoid() * state["cell"] + enter.sigmoid() * update.tanh()
        hidden = leave.sigmoid() * cell.tanh()  # (E, H)
        told = self.to_heads(hidden).view(len(hidden), self.heads, -1)  # (E, R, …)
        gate = told[..., -1:].sigmoid()  # (E, R, 1)
        vectors = told[..., :-1].tanh().split(self.width, -1)
        key, written = vectors[0], vectors[-1]  # (E, R, W)

        least = state["usage"].argsort(dim=-1, stable=True)[:, : self.heads]  # (E, R), least used first
        ones = torch.zeros_like(before).scatter_(2, least.unsqueeze(-1), 1.0)  # (E, R, L)
        write_weights = gate * before + (1 - gate) * ones.sum(1, keepdim=True)  # equations 6 and 7
        emptied = memory * (1 - ones[:, 0]).unsqueeze(-1)
        memory = torch.baddbmm(emptied, write_weights.transpose(1, 2), written)  # equation 8

        length = key.square().sum(-1, keepdim=True) * memory.square().sum(-1).unsqueeze(1)  # (E, R, L)
        cosine = key @ memory.transpose(1, 2) * (length + _TINY).rsqrt()  # equation 2
        read_weights = cosine.softmax(-1)  # equation 3
        usage = self.decay * state["usage"] + (read_weights + write_weights).sum(1).detach()  # equation 5
        return {
            "memory": memory,
            "usage": usage,
            "read_weights": read_weights,
            "reads": (read_weights @ memory).flatten(1),  # equation 4
            "hidden": hidden,
            "cell": cell,
            "label": state["label"],
        }

    def answer(self, state: State) -> Tensor:
        """Return logits (E, N) from o_t = (h_t, r_t)."""
        logits: Tensor = self.to_logits(torch.cat([state["hidden"], state["reads"]], 1))
        return logits

    def run_sequence(self, x: Tensor, onehot: Tensor) -> Tensor:
        """Answer each example of a sequence as it comes: the paper's protocol.

        Parameters
        ----------
        x : Tensor, shape (E, T, D)
            Examples in the order in which they are shown.
        onehot : Tensor, shape (E, T, N)
            Their labels; the label at t is seen from step t + 1 on. A row of zeros is padding: it leaves the
            state as it was and is answered from it.

        Returns
        -------
        Tensor, shape (E, T, N)
            Logits.

        Raises
        ------
        MetaDxError
            ``other_ways``.
        """
        return self._run(x, onehot)[0]

    def _run(self, x: Tensor, onehot: Tensor) -> tuple[Tensor, State]:
        """Return logits (E, T, N) and the state after the last step."""
        self._check_ways(onehot.shape[-1])
        onehot = onehot.to(x.dtype)
        real = onehot.sum(-1) > 0  # (E, T)
        shown = _labels_before(onehot, real)  # (E, T + 1, N)
        drive = self.from_input(torch.cat([x.masked_fill(~real.unsqueeze(-1), 0), shown[:, :-1]], -1))
        whole = real.all(0).tolist()
        state, outputs = self.start(x), []
        for t, gates in enumerate(drive.unbind(1)):
            after = self.step(gates, state)
            if not whole[t]:
                after = {name: _where(real[:, t], value, state[name]) for name, value in after.items()}
            state = after
            outputs.append(torch.cat([state["hidden"], state["reads"]], 1))
        return self.to_logits(torch.stack(outputs, 1)), {**state, "label": shown[:, -1]}

    def adapt_tensors(self, support_x: Tensor, support_onehot: Tensor) -> State:
        """Read the support set as one sequence, interleaved over the classes.

        Parameters
        ----------
        support_x : Tensor, shape (E, S, D)
            Embeddings.
        support_onehot : Tensor, shape (E, S, N)
            Labels, zero rows where padded.

        Returns
        -------
        State
            ``memory`` (E, rows, width), ``usage`` (E, rows), ``read_weights`` (E, n, rows), ``reads``
            (E, n × width), ``hidden`` and ``cell`` (E, H), ``label`` (E, N) of the last example, still to be
            shown, ``count`` (E, N).

        Raises
        ------
        MetaDxError
            ``other_ways``.
        """
        order = _interleaved(support_onehot).unsqueeze(-1)  # (E, S, 1)
        x = support_x.gather(1, order.expand_as(support_x))
        _, state = self._run(x, support_onehot.gather(1, order.expand_as(support_onehot)))
        return {**state, "count": support_onehot.sum(1)}

    def predict_tensors(self, state: State, query_x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Answer each query by one step of its own from the state after the support.

        Parameters
        ----------
        state : State
            From :meth:`adapt_tensors`.
        query_x : Tensor, shape (E, Q, D)
            Embeddings.

        Returns
        -------
        Tensor, shape (E, 1, Q, N)
        """
        tasks, queries, _ = query_x.shape
        label = state["label"].unsqueeze(1).expand(-1, queries, -1)
        drive = self.from_input(torch.cat([query_x, label], -1)).flatten(0, 1)  # (E Q, 4 H)
        forks = {n: v.repeat_interleave(queries, 0) for n, v in state.items() if n != "count"}
        logits = self.answer(self.step(drive, forks)).view(tasks, 1, queries, self.ways)
        return mask_absent_classes(logits, state["count"])

    def adapt(self, support: Support, *, noise: Tensor | None = None) -> State:
        """Adapt to a support set; pure.

        Raises
        ------
        MetaDxError
            ``other_ways`` when an episode does not have the N that the network was built for.
        """
        self._check_episode(support.class_mask)
        return super().adapt(support)

    def loss(self, episode: Episode, *, generator: torch.Generator | None = None) -> tuple[Tensor, Metrics]:
        """Return the loss that ``objective`` names.

        Parameters
        ----------
        episode : Episode
            Over embeddings.
        generator : torch.Generator, optional
            Draws the order of the rows; needed by ``"sequence"``, where a fixed order would tell the label.

        Returns
        -------
        loss : Tensor, scalar
            Mean cross-entropy in nats: of the queries, or of all steps.
        metrics : dict of str to Tensor
            ``loss`` and ``accuracy`` of the queries, wherever in the sequence they stand; detached.

        Raises
        ------
        MetaDxError
            ``other_ways``.
        ValueError
            For ``"sequence"`` without a generator.
        """
        self._check_episode(episode.class_mask)
        if self.objective == "query":
            return super().loss(episode)
        if generator is None:
            raise ValueError("the sequence objective draws the order of the rows: give a generator")
        x = torch.cat([episode.support_x, episode.query_x], 1)
        asked = functional.one_hot(episode.query_y, self.ways) * episode.query_mask.unsqueeze(-1)
        onehot = torch.cat([episode.support.onehot(), asked.to(x.dtype)], 1)  # (E, T, N)
        drawn = torch.rand(x.shape[:2], generator=generator, device=generator.device)
        order = drawn.argsort(1).to(x.device).unsqueeze(-1)  # (E, T, 1)
        x, onehot = x.gather(1, order.expand_as(x)), onehot.gather(1, order.expand_as(onehot))
        logits = self.run_sequence(x, onehot)
        loss = sequence_loss(logits, onehot)
        right = (logits.argmax(-1) == onehot.argmax(-1)) & (order.squeeze(-1) >= episode.support_x.shape[1])
        right = right & (onehot.sum(-1) > 0)
        accuracy = right.sum() / episode.query_mask.sum()
        return loss, {"loss": loss.detach(), "accuracy": accuracy}

    def _check_episode(self, class_mask: Tensor) -> None:
        for ways in (*class_mask.sum(1).tolist(), class_mask.shape[1]):
            self._check_ways(ways)

    def _check_ways(self, ways: int) -> None:
        if ways != self.ways:
            raise MetaDxError(
                "other_ways",
                f"Mann was built for {self.ways} classes; an episode has {ways}: train one for that number, or choose "
                "a learner that accepts any (prototypical, proto_maml, anp).",
            )


def sequence_loss(logits: Tensor, onehot: Tensor) -> Tensor:
    """Return the mean over all real steps of the cross-entropy, in nats.

    The paper's loss, which is the sum over the steps of a sequence, divided by their number.

    Parameters
    ----------
    logits : Tensor, shape (E, T, N)
        From :meth:`Mann.run_sequence`.
    onehot : Tensor, shape (E, T, N)
        Labels; rows of zeros do not count.
    """
    return -(logits.log_softmax(-1) * onehot).sum() / onehot.sum()


def accuracy_by_presentation(logits: Tensor, onehot: Tensor) -> Tensor:
    """Return the accuracy at the first, second, … presentation of a class: the paper's figure.

    Parameters
    ----------
    logits : Tensor, shape (E, T, N)
        Answers, each given before its label was shown.
    onehot : Tensor, shape (E, T, N)
        Labels; rows of zeros do not count.

    Returns
    -------
    Tensor, shape (K,), float64
        K is the largest number of examples of one class in one sequence. The paper counts these "instances"
        from 1: the first can only be guessed.
    """
    real = onehot.sum(-1) > 0  # (E, T)
    nth = ((onehot.cumsum(1) * onehot).sum(-1).long() - 1)[real]  # 0 for the first
    right = (logits.argmax(-1) == onehot.argmax(-1))[real].double()
    shown = torch.bincount(nth)
    return torch.bincount(nth, weights=right) / shown


def _labels_before(onehot: Tensor, real: Tensor) -> Tensor:
    """Return the last label shown before each step and after the last one, (E, T + 1, N); zero at first."""
    steps = torch.arange(1, real.shape[1] + 1, device=real.device)
    last = (steps * real).cummax(1).values  # (E, T): 1 + the last real step up to here, 0 for none
    last = functional.pad(last, (1, 0)).unsqueeze(-1)  # (E, T + 1, 1)
    return functional.pad(onehot, (0, 0, 1, 0)).gather(1, last.expand(-1, -1, onehot.shape[-1]))


def _interleaved(onehot: Tensor) -> Tensor:
    """Return the order (E, S) of rows: first examples by class, then second ones; padding at the end."""
    rows, ways = onehot.shape[1:]
    nth = (onehot.cumsum(1) * onehot).sum(-1)  # (E, S): 1 for a class's first row, 0 for padding
    rank = nth * ways + onehot.argmax(-1)
    return rank.masked_fill(nth == 0, (rows + 1) * ways).argsort(dim=1, stable=True)


def _where(real: Tensor, after: Tensor, before: Tensor) -> Tensor:
    """Choose by sequence, real (E,)."""
    return torch.where(real.view(-1, *[1] * (after.dim() - 1)), after, before)
