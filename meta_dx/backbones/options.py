"""Which network turns an image into an embedding: the section ``[backbone]`` of ``cohort.toml``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from meta_dx.errors import MetaDxError

BackboneName = Literal["resnet10-small", "resnet10", "resnet18", "densenet121", "efficientnet-b0", "conv4"]
BACKBONES: tuple[str, ...] = get_args(BackboneName)


@dataclass(frozen=True)
class BackboneOptions:
    """Section ``[backbone]``.

    Parameters
    ----------
    name : {"resnet10-small", "resnet10", "resnet18", "densenet121", "efficientnet-b0", "conv4"}
        The network: ``resnet10-small`` (0.7 million weights) for a CPU and small pictures, ``resnet10`` (2.8)
        for real cohorts on a CPU, ``conv4`` (0.1) as in the papers on small pictures, the others for a GPU and
        larger pictures.
    weights : str
        File with weights to start from, a plain torch state dict or one of our ``encoder.pt``; empty: random.
    """

    name: BackboneName = "resnet10-small"
    weights: str = ""

    def __post_init__(self) -> None:
        if self.name not in BACKBONES:
            raise MetaDxError("bad_value", f"name is '{self.name}': allowed are {', '.join(BACKBONES)}.")
