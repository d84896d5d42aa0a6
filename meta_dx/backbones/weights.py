"""Loads a user's own weights into a network, or says exactly what does not fit."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from meta_dx.errors import MetaDxError

#: What wrappers and checkpoints put before a network's own names.
_PREFIXES = ("module.", "_orig_mod.", "encoder.", "network.", "backbone.", "model.", "net.")
#: Under what name checkpoints hold the state dict.
_CONTAINERS = ("state", "state_dict", "model_state_dict", "model", "network", "encoder")
#: Classifiers: an encoder has none, so theirs are left behind.
_CLASSIFIERS = re.compile(r"^(fc|_fc|classifier|class_layers\.out|head)\.")
#: torchvision's DenseNet calls ``denselayer1.norm1`` what MONAI calls ``denselayer1.layers.norm1``.
_TORCHVISION_DENSE = re.compile(r"(denselayer\d+)\.((?:norm|relu|conv)[12]\.)")
_SHOWN = 5


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a state dict; every weight of the network must be there with its shape, and nothing else.

    Prefixes of wrappers (``module.``, ``encoder.`` …) and classifier layers are taken off; input
    normalisation (``mean``, ``std``) is left behind, because it belongs to the training images.

    Parameters
    ----------
    network : nn.Module
        Filled in place.
    path : Path
        A torch file with tensors only; it is read without unpickling code.

    Raises
    ------
    MetaDxError
        ``no_weights``, ``bad_weights`` or ``weights_do_not_fit``.
    """
    found = _cleaned(_read(path))
    wanted = network.state_dict()
    missing = [n for n in wanted if n not in found and not n.endswith("num_batches_tracked")]
    extra = [n for n in found if n not in wanted]
    shapes = [
        f"{n} {tuple(found[n].shape)} instead of {tuple(wanted[n].shape)}"
        for n in wanted
        if n in found and found[n].shape != wanted[n].shape
    ]
    faults = [
        f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''}"
        for what, names in (("missing", missing), ("unknown", extra), ("of another shape", shapes))
        if names
    ]
    if faults:
        raise MetaDxError(
            "weights_do_not_fit",
            f"The weights in {path} are not those of this backbone ({'; '.join(faults)}): "
            "choose the backbone and [images] channels that they were trained with.",
        )
    network.load_state_dict(found, strict=False)


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise MetaDxError("no_weights", f"There is no file {path}: correct [backbone] weights.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as fault:
        raise MetaDxError(
            "bad_weights",
            f"{path} is not a torch file that holds only tensors ({type(fault).__name__}): "
            "save a state dict with torch.save(network.state_dict(), …).",
        ) from fault
    while isinstance(content, Mapping) and not any(isinstance(v, Tensor) for v in content.values()):
        inner = next((content[name] for name in _CONTAINERS if name in content), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping) or not any(isinstance(v, Tensor) for v in content.values()):
        raise MetaDxError("bad_weights", f"{path} holds no state dict: save network.state_dict().")
    return content


def _cleaned(content: Mapping[str, Any]) -> dict[str, Tensor]:
    named = ((_own_name(name), value) for name, value in content.items())
    return {
        name: value
        for name, value in named
        if isinstance(value, Tensor) and not _CLASSIFIERS.match(name) and name not in ("mean", "std")
    }


def _own_name(name: str) -> str:
    while prefix := next((p for p in _PREFIXES if name.startswith(p)), None):
        name = name.removeprefix(prefix)
    return _TORCHVISION_DENSE.sub(r"\1.layers.\2", name)
