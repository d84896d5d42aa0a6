"""Encoders: shapes, normalisation inside, own weights, export."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from meta_dx.backbones import BACKBONES, BackboneOptions, build_encoder, load_encoder, save_encoder
from meta_dx.backbones.encoder import weights_hash
from meta_dx.errors import MetaDxError

SMALL = BackboneOptions()


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize(("channels", "spatial"), [(1, (64, 64)), (3, (64, 64)), (1, (32, 32, 32))])
def test_every_backbone_gives_one_embedding_an_image(
    name: str, channels: int, spatial: tuple[int, ...]
) -> None:
    encoder = build_encoder(BackboneOptions(name=name), channels, len(spatial)).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        found = encoder(torch.randint(0, 256, (2, channels, *spatial), dtype=torch.uint8))
    assert found.shape == (2, encoder.embedding_size)
    assert found.isfinite().all()
    assert not torch.allclose(found[0], found[1], rtol=1e-4, atol=0)


def test_uint8_and_float_images_give_the_same_embedding() -> None:
    encoder = build_encoder(SMALL, 1).eval()
    images = torch.randint(0, 256, (3, 1, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(encoder(images), encoder(images.double()))


def test_normalisation_inside_undoes_gain_and_offset_of_a_channel() -> None:
    encoder = build_encoder(SMALL, 2).eval()
    images = torch.rand(4, 2, 32, 32) * 100
    mean, std = images.mean((0, 2, 3)), images.std((0, 2, 3))
    encoder.set_normalisation(mean, std)
    before = encoder(images)
    gain, offset = torch.tensor([2.0, 0.5]), torch.tensor([10.0, 40.0])
    encoder.set_normalisation(mean * gain + offset, std * gain)
    torch.testing.assert_close(
        encoder(images * gain[:, None, None] + offset[:, None, None]), before, rtol=1e-3, atol=1e-4
    )


def test_a_constant_channel_stays_finite() -> None:
    encoder = build_encoder(SMALL, 1).eval()
    encoder.set_normalisation(torch.tensor([7.0]), torch.tensor([0.0]))
    assert encoder(torch.full((1, 1, 32, 32), 7.0)).isfinite().all()


def test_a_saved_encoder_comes_back_bit_for_bit(tmp_path: Path) -> None:
    encoder = build_encoder(SMALL, 1)
    encoder.set_normalisation(torch.tensor([11.0]), torch.tensor([3.0]))
    save_encoder(encoder, tmp_path / "encoder.pt")
    again = load_encoder(tmp_path / "encoder.pt")
    assert weights_hash(again) == weights_hash(encoder)
    with torch.no_grad():
        next(again.parameters()).view(-1)[0] += 1e-6
    assert weights_hash(again) != weights_hash(encoder)


@pytest.mark.parametrize("prefix", ["", "module.", "encoder.", "module.encoder.", "_orig_mod.network."])
@pytest.mark.parametrize("container", [None, "state_dict", "model"])
def test_own_weights_load_under_the_names_that_wrappers_give_them(
    tmp_path: Path, prefix: str, container: str | None
) -> None:
    source = build_encoder(SMALL, 1)
    state = {prefix + name: value for name, value in source.network.state_dict().items()}
    state[prefix + "fc.weight"] = torch.zeros(10, 192)
    torch.save({"epoch": 3, container: state} if container else state, tmp_path / "own.pth")
    loaded = build_encoder(BackboneOptions(weights=str(tmp_path / "own.pth")), 1)
    assert weights_hash(loaded.network) == weights_hash(source.network)


def test_our_own_encoder_file_is_a_valid_start(tmp_path: Path) -> None:
    source = build_encoder(SMALL, 1)
    save_encoder(source, tmp_path / "encoder.pt")
    loaded = build_encoder(BackboneOptions(weights=str(tmp_path / "encoder.pt")), 1)
    assert weights_hash(loaded.network) == weights_hash(source.network)


def test_densenet_weights_under_torchvision_names_load(tmp_path: Path) -> None:
    options = BackboneOptions(name="densenet121")
    source = build_encoder(options, 3)
    named = {name.replace(".layers.", "."): value for name, value in source.network.state_dict().items()}
    assert named.keys() != source.network.state_dict().keys()
    torch.save({**named, "classifier.weight": torch.zeros(1000, 1024)}, tmp_path / "d.pth")
    loaded = build_encoder(BackboneOptions(name="densenet121", weights=str(tmp_path / "d.pth")), 3)
    assert weights_hash(loaded.network) == weights_hash(source.network)


def test_weights_that_do_not_fit_are_refused_with_what_did_not_match(tmp_path: Path) -> None:
    state = build_encoder(SMALL, 3).network.state_dict()
    del state["layer1.0.conv1.weight"]
    state["stranger"] = torch.zeros(2)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(MetaDxError) as told:
        build_encoder(BackboneOptions(weights=str(tmp_path / "w.pth")), 1)
    assert told.value.code == "weights_do_not_fit"
    for part in ("1 missing: layer1.0.conv1.weight", "1 unknown: stranger", "conv1.weight (24, 3, 3, 3)"):
        assert part in str(told.value)


@pytest.mark.parametrize(
    ("content", "code"), [(None, "no_weights"), (b"not torch", "bad_weights"), ({"a": 1}, "bad_weights")]
)
def test_files_that_hold_no_weights_are_refused(tmp_path: Path, content: object, code: str) -> None:
    path = tmp_path / "w.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(MetaDxError) as told:
        build_encoder(BackboneOptions(weights=str(path)), 1)
    assert told.value.code == code


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "whole_module.pt")  # pickles classes, not tensors
    with pytest.raises(MetaDxError, match="only tensors"):
        build_encoder(BackboneOptions(weights=str(tmp_path / "whole_module.pt")), 1)


def test_an_unknown_backbone_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(MetaDxError, match="resnet10-small, resnet10, resnet18"):
        BackboneOptions(name="vgg")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["resnet10-small", "efficientnet-b0"])
def test_the_encoder_can_be_traced_with_a_free_batch(name: str) -> None:
    encoder = build_encoder(BackboneOptions(name=name), 1).eval()  # type: ignore[arg-type]
    example = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    program = torch.export.export(encoder, (example,), dynamic_shapes=({0: torch.export.Dim("B")},))
    more = torch.randint(0, 256, (5, 1, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(program.module()(more), encoder(more))
