"""From torch to ONNX: one network that answers pictures by itself, checked against torch like every graph."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from meta_dx.inference.export import PROBABILITY_TOLERANCE, ExportError, random_images, to_onnx
from meta_dx.inference.providers import open_session


def network_graph(network: nn.Module, sample_shape: Sequence[int], ways: int) -> bytes:
    """Export a network: ``images`` (B, C, *spatial) uint8 → ``logits`` and ``probabilities`` (B, N) float32.

    Parameters
    ----------
    network : nn.Module
        Maps 0..255 images to logits, each image by itself. It is copied to the CPU and not changed.
    sample_shape : sequence of int
        (C, *spatial) of one image.
    ways : int
        N.

    Returns
    -------
    bytes
        The graph.

    Raises
    ------
    ExportError
        When ONNX Runtime's probabilities are not torch's, or an image's depend on the others of its batch.
    """
    model = _WithProbabilities(copy.deepcopy(network).cpu().float()).eval()
    shape, names = tuple(sample_shape), ["logits", "probabilities"]
    proto = to_onnx(model, (random_images(0, 2, shape),), ["images"], names, ({0: "B"},))
    data: bytes = proto.SerializeToString()
    session = open_session(data, "cpu")
    for seed, batch in enumerate((1, 3, 8), start=1):
        fresh = _varied_images(seed, batch, shape)
        with torch.no_grad():
            logits, expected = model(fresh)
        found = torch.from_numpy(session.run(names, {"images": fresh.numpy()})[1])
        first = torch.from_numpy(session.run(names, {"images": fresh[:1].numpy()})[1])
        allowed = max(PROBABILITY_TOLERANCE, torch.finfo(torch.float32).eps * float(logits.abs().max()))
        apart = [(found - expected).abs().max(), (first - expected[:1]).abs().max()]
        if found.shape != (batch, ways) or not all(float(a) <= allowed for a in apart):  # NaN must fail too
            raise ExportError(
                f"network: probabilities of {batch} images differ by {float(max(apart)):.1e} from torch's, more "
                f"than {allowed:.0e}, or are not of {ways} classes"
            )
    return data


class _WithProbabilities(nn.Module):
    """A network and the softmax of its logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(images.float())
        return logits, logits.softmax(-1)


def _varied_images(seed: int, batch: int, shape: tuple[int, ...]) -> Tensor:
    """Draw pictures that differ in brightness and in coarse pattern, noise on top: (B, C, *spatial) uint8."""
    noise = random_images(seed, batch, shape).float()
    generator = torch.Generator().manual_seed(seed)
    coarse = 255 * torch.rand((batch, shape[0], *[4] * (len(shape) - 1)), generator=generator)
    share = torch.rand((batch, *[1] * len(shape)), generator=generator)
    pattern = nn.functional.interpolate(coarse, size=shape[1:])
    return (share * pattern + (1 - share) * noise).to(torch.uint8)
