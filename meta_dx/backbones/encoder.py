"""The encoder: a network of ``monai.networks.nets`` without its classifier, normalisation inside.

Images are uint8 or float in 0 … 255, as the image store holds them; the embedding is the network's global
average.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from meta_dx.backbones.options import BackboneOptions
from meta_dx.backbones.weights import load_weights
from meta_dx.errors import MetaDxError
from meta_dx.home import write_bytes

_SMALLEST_STD = 1.0  # of 255: a channel that is all one value stays finite


class Encoder(nn.Module):
    """Images (B, C, *spatial) in 0 … 255, uint8 or float, to embeddings (B, D).

    Parameters
    ----------
    network : nn.Module
        Maps normalised images to vectors of length ``embedding_size``.
    options : BackboneOptions
        What the network was built from.
    channels : int
        C.
    spatial_dims : int
        2 for pictures, 3 for volumes.
    embedding_size : int
        D.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        options: BackboneOptions,
        *,
        channels: int,
        spatial_dims: int,
        embedding_size: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.options = options
        self.channels, self.spatial_dims, self.embedding_size = channels, spatial_dims, embedding_size
        shape = (1, channels, *[1] * spatial_dims)
        self.register_buffer("mean", torch.full(shape, 127.5))
        self.register_buffer("std", torch.full(shape, 64.0))

    def set_normalisation(self, mean: Tensor, std: Tensor) -> None:
        """Store mean and standard deviation (C,) of the training images, in units of 0 … 255."""
        self.mean.copy_(mean.reshape(self.mean.shape))
        self.std.copy_(std.clamp_min(_SMALLEST_STD).reshape(self.std.shape))

    def forward(self, images: Tensor) -> Tensor:
        """Embed images.

        Parameters
        ----------
        images : Tensor, shape (B, C, *spatial)
            uint8, or float in 0 … 255.

        Returns
        -------
        Tensor, shape (B, D)
        """
        embeddings: Tensor = self.network((images.float() - self.mean) / self.std)
        return embeddings


def build_encoder(options: BackboneOptions, channels: int, spatial_dims: int = 2) -> Encoder:
    """Build an encoder, with random weights or those of ``options.weights``.

    Parameters
    ----------
    options : BackboneOptions
        Which network.
    channels : int
        C.
    spatial_dims : int
        2 or 3.

    Returns
    -------
    Encoder

    Raises
    ------
    MetaDxError
        ``no_weights``, ``bad_weights`` or ``weights_do_not_fit``.
    """
    network, size = _network(options.name, channels, spatial_dims)
    encoder = Encoder(network, options, channels=channels, spatial_dims=spatial_dims, embedding_size=size)
    if options.weights:
        load_weights(network, Path(options.weights))
    return encoder


def save_encoder(encoder: Encoder, path: Path) -> None:
    """Write an encoder, weights and description, atomically."""
    content = {
        "options": {**asdict(encoder.options), "weights": ""},
        "channels": encoder.channels,
        "spatial_dims": encoder.spatial_dims,
        "state": {name: value.detach().cpu() for name, value in encoder.state_dict().items()},
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())


def load_encoder(path: Path) -> Encoder:
    """Read an encoder that :func:`save_encoder` wrote, in evaluation mode on the CPU.

    Raises
    ------
    MetaDxError
        ``no_weights`` when the file is missing.
    """
    if not path.exists():
        raise MetaDxError("no_weights", f"There is no trained encoder at {path}: train first.")
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    encoder = build_encoder(
        BackboneOptions(**content["options"]), content["channels"], content["spatial_dims"]
    )
    encoder.load_state_dict(content["state"])
    return encoder.eval()


def weights_hash(module: nn.Module) -> str:
    """Return 16 hexadecimal digits that name these weights: equal bits, equal name."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _network(name: str, channels: int, spatial_dims: int) -> tuple[nn.Module, int]:
    if name.startswith("resnet"):
        return _resnet(name, channels, spatial_dims)
    builders = {"densenet121": _densenet, "efficientnet-b0": _efficientnet, "conv4": _conv4}
    return builders[name](channels, spatial_dims)


def _resnet(name: str, channels: int, spatial_dims: int) -> tuple[nn.Module, int]:
    from monai.networks.nets import ResNet

    # Blocks, widths and size of the first convolution. ResNet-18 is the usual one, so that its weights load.
    layers, widths, first = {
        "resnet10-small": ([1, 1, 1, 1], [24, 48, 96, 192], 3),
        "resnet10": ([1, 1, 1, 1], [48, 96, 192, 384], 3),
        "resnet18": ([2, 2, 2, 2], [64, 128, 256, 512], 7),
    }[name]
    network = ResNet(
        "basic",
        layers,
        widths,
        spatial_dims=spatial_dims,
        n_input_channels=channels,
        conv1_t_size=first,
        conv1_t_stride=2,
        feed_forward=False,
        bias_downsample=False,
    )
    return network, widths[-1]


def _densenet(channels: int, spatial_dims: int) -> tuple[nn.Module, int]:
    from monai.networks.nets import DenseNet121

    network = DenseNet121(spatial_dims=spatial_dims, in_channels=channels, out_channels=1)
    size = int(network.class_layers.out.in_features)
    network.class_layers.out = nn.Identity()
    return network, size


def _efficientnet(channels: int, spatial_dims: int) -> tuple[nn.Module, int]:
    from monai.networks.nets import EfficientNetBN

    network = EfficientNetBN(
        "efficientnet-b0",
        pretrained=False,
        spatial_dims=spatial_dims,
        in_channels=channels,
        norm=("batch", {"eps": 1e-3, "momentum": 0.1}),  # the usual 0.01 needs long training
    )
    network.set_swish(memory_efficient=False)  # the memory-efficient one cannot be exported
    size = int(network._fc.in_features)
    network._fc = nn.Identity()
    return network, size


def _conv4(channels: int, spatial_dims: int) -> tuple[nn.Module, int]:
    """Build the four blocks of the few-shot papers: convolution of 64, batch norm, ReLU, max-pooling by 2."""
    from monai.networks.blocks import Convolution
    from monai.networks.layers import Pool

    width, layers = 64, []
    for before in (channels, width, width, width):
        layers.append(
            Convolution(
                spatial_dims, before, width, kernel_size=3, adn_ordering="NA", act="RELU", norm="BATCH"
            )
        )
        layers.append(Pool["MAX", spatial_dims](2))
    # The papers flatten; on their 28 x 28 pictures one pixel is left and the average is the same.
    layers += [Pool["ADAPTIVEAVG", spatial_dims](1), nn.Flatten()]
    return nn.Sequential(*layers), width
