"""Encoders: MONAI networks from image to embedding, 2-D and 3-D, with input normalisation inside.

Options are importable without torch; ``Encoder``, ``build_encoder``, ``load_encoder`` and ``save_encoder``
load it on first use, because the command line reads options at start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meta_dx.backbones.options import BACKBONES, BackboneOptions

if TYPE_CHECKING:
    from meta_dx.backbones.encoder import Encoder, build_encoder, load_encoder, save_encoder

__all__ = [
    "BACKBONES",
    "BackboneOptions",
    "Encoder",
    "build_encoder",
    "load_encoder",
    "save_encoder",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from meta_dx.backbones import encoder

        return getattr(encoder, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
