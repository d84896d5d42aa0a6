"""Other people's implementations, imported unchanged from a checkout; none is a dependency."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path
from typing import Any


def learn2learn_maml(checkout: Path) -> Any:
    """Return the class ``MAML`` of ``learn2learn/algorithms/maml.py``, without what the whole package needs."""
    for name, folder in (
        ("learn2learn", checkout / "learn2learn"),
        ("learn2learn.algorithms", checkout / "learn2learn" / "algorithms"),
    ):
        package = types.ModuleType(
            name
        )  # so that the package's own __init__, which needs much more, is not run
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    return importlib.import_module("learn2learn.algorithms.maml").MAML


def prototypical_authors(checkout: Path) -> Any:
    """Return ``load_protonet_conv`` of ``protonets/models/few_shot.py`` (jakesnell/prototypical-networks)."""
    sys.path.insert(0, str(checkout))
    return importlib.import_module("protonets.models.few_shot").load_protonet_conv
