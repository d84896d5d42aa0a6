"""One small bundle for all tests of the room."""

from __future__ import annotations

import os

import pytest

from meta_dx.inference.bundle import Bundle, BundleParts
from meta_dx.inference.predictor import Predictor
from tests.inference.bundles import shared_bundle, small_parts
from tests.inference.uncertain import uncertain_bundle


@pytest.fixture(scope="session")
def parts() -> BundleParts:
    return small_parts()


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared_bundle"
    folder.mkdir(exist_ok=True)
    return shared_bundle(folder)


@pytest.fixture(scope="session")
def predictor(bundle: Bundle) -> Predictor:
    return Predictor(bundle, device="cpu", threads=1)


@pytest.fixture(scope="session")
def uncertain(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "uncertain_bundle"
    folder.mkdir(exist_ok=True)
    return Predictor(uncertain_bundle(folder), device="cpu", threads=1)
