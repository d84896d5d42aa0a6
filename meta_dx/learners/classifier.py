"""The network of the learners that adapt weights: an encoder and one linear layer on its embeddings.

What MAML, Reptile, Meta-LSTM and fine-tuning adapt. The split has names, because some of them treat the last
layer apart: ANIL adapts nothing else, Proto-MAML builds it from the support set.
"""

from __future__ import annotations

from torch import Tensor, nn

from meta_dx.errors import MetaDxError


class Classifier(nn.Module):
    """Examples (B, …) to logits (B, N); parameters ``encoder.*``, ``linear.weight`` and ``linear.bias``.

    Parameters
    ----------
    encoder : nn.Module
        Maps examples (B, …) to embeddings (B, D): an :class:`~meta_dx.backbones.encoder.Encoder`, or
        ``nn.Identity()`` over cached embeddings.
    embedding_size : int
        D.
    ways : int or None
        N of the last layer; None where the learner builds that layer from the support set.
    """

    def __init__(self, encoder: nn.Module, embedding_size: int, ways: int | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.embedding_size, self.ways = embedding_size, ways
        self.linear = None if ways is None else nn.Linear(embedding_size, ways)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, N).

        Raises
        ------
        MetaDxError
            ``no_last_layer`` where ``ways`` is None.
        """
        if self.linear is None:
            raise MetaDxError(
                "no_last_layer",
                "This classifier was built without a last layer: build one from the support set, or give it ways.",
            )
        logits: Tensor = self.linear(self.encoder(x))
        return logits
