"""A bundle is immutable, verified, named by its content, and read without torch."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from meta_dx.inference import export
from meta_dx.inference.bundle import Bundle, BundleParts, latest_bundle, write_bundle
from tests.inference.bundles import SIZE

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle.path, tmp_path / "copy"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write names in the place of graphs: these tests are about the folder."""

    def encoder(module: Any, shape: Any, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"encoder {tuple(shape)}")

    def head(module: Any, size: int, adapt: Path, predict: Path, calibration: Any) -> None:
        adapt.parent.mkdir(parents=True, exist_ok=True)
        adapt.write_text(type(module).__name__)
        predict.write_text(f"{type(module).__name__} {calibration}")

    monkeypatch.setattr(export, "export_encoder", encoder)
    monkeypatch.setattr(export, "export_head", head)


def test_the_folder_has_monais_layout_and_nothing_else(bundle: Bundle) -> None:
    files = {file.relative_to(bundle.path).as_posix() for file in bundle.path.rglob("*") if file.is_file()}
    graphs = {
        f"models/{h}/{g}.onnx"
        for h in ("prototypical", "simpleshot", "logistic")
        for g in ("adapt", "predict")
    }
    assert files == graphs | {
        "manifest.json",
        "configs/metadata.json",
        "configs/preprocessing.json",
        "models/encoder.onnx",
        "models/embedding_mean.npy",
        "docs/README.md",
    }


def test_the_manifest_has_the_sha256_of_every_other_file_and_names_the_bundle(bundle: Bundle) -> None:
    content = (bundle.path / "manifest.json").read_bytes()
    listed = json.loads(content)["sha256"]
    assert len(listed) == 11
    for name, digest in listed.items():
        assert hashlib.sha256((bundle.path / name).read_bytes()).hexdigest() == digest
    assert bundle.id == bundle.path.name == hashlib.sha256(content).hexdigest()[:16]


def test_what_went_in_can_be_read_again(bundle: Bundle, parts: BundleParts) -> None:
    assert bundle.serving_head == "simpleshot"
    assert bundle.heads == ("logistic", "prototypical", "simpleshot")
    assert bundle.embedding_size == 192
    assert bundle.image_options == parts.image_options
    assert bundle.calibration("prototypical") == parts.calibrations["prototypical"]
    assert (bundle.calibration("logistic").a, bundle.calibration("logistic").queries) == (0.0, 0)
    np.testing.assert_array_equal(bundle.embedding_mean, parts.base_mean)
    ours = bundle.metadata["meta_dx"]
    assert (ours["cohort"], ours["data_version"], ours["split_version"], ours["seed"]) == (
        "small",
        "d0",
        1,
        3,
    )
    assert ours["validation"] == parts.validation


def test_only_diseases_that_were_seen_are_called_seen(bundle: Bundle) -> None:
    assert bundle.seen_diseases == {"C1": "common", "C2": "common", "V1": "validation"}
    assert "R1" not in (bundle.path / "configs/metadata.json").read_text()


def test_the_folder_of_starting_weights_stays_at_home(bundle: Bundle) -> None:
    assert bundle.metadata["meta_dx"]["backbone"] == {"name": "resnet10-small", "weights": "start.pt"}


def test_the_metadata_has_monais_required_fields(bundle: Bundle) -> None:
    required = {
        "schema",
        "version",
        "monai_version",
        "pytorch_version",
        "numpy_version",
        "required_packages_version",
        "task",
        "description",
        "authors",
        "copyright",
        "network_data_format",
    }
    assert required <= set(bundle.metadata)
    assert "unknown" not in [bundle.metadata[f"{p}_version"] for p in ("monai", "pytorch", "numpy")]
    for tensor in (
        bundle.metadata["network_data_format"]["inputs"]["image"],
        bundle.metadata["network_data_format"]["outputs"]["pred"],
    ):
        assert {"type", "format", "num_channels", "spatial_shape", "dtype", "value_range"} <= set(tensor)
    assert bundle.metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] == [SIZE, SIZE]


def test_monai_reads_it(bundle: Bundle) -> None:
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_meta(bundle.path / "configs/metadata.json")
    assert parser["_meta_#network_data_format#inputs#image#num_channels"] == 1


def test_the_model_card_speaks_of_use_training_and_calibration(bundle: Bundle) -> None:
    card = (bundle.path / "docs/README.md").read_text()
    assert "Research use only" in card
    assert "- accuracy: 0.7\n" in card
    assert "| head | loss |\n|---|---|\n| simpleshot | 0.5123 |\n| logistic | 0.6 |" in card
    assert "2 diseases trained on, 1 chosen on" in card
    assert (
        "| simpleshot (serves) | -0.500 +0.100·log(shots) -0.100·log(ways) +0.000·log(1+1/shots) | 0.200 → 0.030 | 90 |"
        in card
    )
    assert (
        "| logistic | +0.000 +0.000·log(shots) +0.000·log(ways) +0.000·log(1+1/shots) | not calibrated | 0 |"
        in card
    )


def test_any_changed_file_is_named(bundle: Bundle, copy: Path) -> None:
    for name in json.loads((copy / "manifest.json").read_text())["sha256"]:
        original = (copy / name).read_bytes()
        flipped = bytearray(original)
        flipped[len(flipped) // 2] ^= 1
        (copy / name).unlink()
        (copy / name).write_bytes(flipped)
        with pytest.raises(MetaDxError, match=name) as fault:
            Bundle.load(copy)
        assert fault.value.code == "bundle_damaged"
        (copy / name).unlink()
        with pytest.raises(MetaDxError, match=rf"{name} is missing"):
            Bundle.load(copy)
        (copy / name).write_bytes(original)
    assert Bundle.load(copy).id == bundle.id


def test_a_file_that_the_manifest_does_not_name_is_refused(copy: Path) -> None:
    (copy / "models" / "extra.onnx").write_bytes(b"x")
    with pytest.raises(MetaDxError, match=r"models/extra\.onnx is not named"):
        Bundle.load(copy)


def test_a_manifest_that_was_edited_to_fit_makes_another_bundle(bundle: Bundle, copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "docs/README.md").unlink()
    (copy / "docs/README.md").write_text("Approved for clinical use.")
    manifest["sha256"]["docs/README.md"] = hashlib.sha256(b"Approved for clinical use.").hexdigest()
    (copy / "manifest.json").unlink()
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert Bundle.load(copy).id != bundle.id


@pytest.mark.parametrize(
    ("manifest", "code"),
    [
        ("not json", "bundle_damaged"),
        ("[]", "bundle_damaged"),
        ('{"layout": 1}', "bundle_damaged"),
        ('{"layout": 1, "sha256": []}', "bundle_damaged"),
        ('{"layout": 1, "sha256": {}}', "bundle_damaged"),
        ('{"layout": 1, "sha256": {"../../etc/passwd": "0"}}', "bundle_damaged"),
        ('{"layout": 1, "sha256": {"/etc/passwd": "0"}}', "bundle_damaged"),
        ('{"layout": 99, "sha256": {}}', "bundle_layout"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_one_clear_sentence(manifest: str, code: str, copy: Path) -> None:
    (copy / "manifest.json").unlink()
    (copy / "manifest.json").write_text(manifest)
    with pytest.raises(MetaDxError) as fault:
        Bundle.load(copy)
    assert fault.value.code == code


def test_a_folder_that_is_no_bundle_is_said_to_be_none(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(MetaDxError, match="manifest") as fault:
            Bundle.load(folder)
        assert fault.value.code == "no_bundle"


def test_an_unknown_head_is_refused_with_those_that_exist(bundle: Bundle) -> None:
    with pytest.raises(MetaDxError, match="logistic, prototypical, simpleshot") as fault:
        bundle.adapt_path("maml")
    assert fault.value.code == "unknown_head"


def test_pictures_of_another_preprocessing_are_refused(bundle: Bundle) -> None:
    other = Bundle(bundle.path, bundle.id, bundle.metadata, {**bundle.preprocessing, "version": 99})
    with pytest.raises(MetaDxError, match="99") as fault:
        _ = other.image_options
    assert fault.value.code == "bundle_preprocessing"


def test_a_home_knows_its_latest_bundle(quick: None, parts: BundleParts, tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    with pytest.raises(MetaDxError) as fault:
        latest_bundle(home)
    assert fault.value.code == "no_bundle"
    first = write_bundle(home, parts)
    assert first.path == home.bundles / first.id
    second = write_bundle(home, BundleParts(**{**vars(parts), "seed": 4}))
    assert first.id != second.id
    assert latest_bundle(home).id == second.id
    assert write_bundle(home, parts).id == first.id
    assert latest_bundle(home).id == first.id


def test_the_same_parts_make_the_same_bundle_anywhere(
    quick: None, parts: BundleParts, tmp_path: Path
) -> None:
    here, there = write_bundle(tmp_path / "a", parts), write_bundle(tmp_path / "b", parts)
    assert here.id == there.id
    names = [file.relative_to(here.path) for file in here.path.rglob("*") if file.is_file()]
    assert all((here.path / name).read_bytes() == (there.path / name).read_bytes() for name in names)


def test_the_order_of_heads_and_diseases_does_not_matter(
    quick: None, parts: BundleParts, tmp_path: Path
) -> None:
    turned = {**vars(parts), **{k: dict(reversed(getattr(parts, k).items())) for k in ("heads", "diseases")}}
    assert write_bundle(tmp_path, BundleParts(**turned)).id == write_bundle(tmp_path, parts).id


def test_an_export_that_fails_leaves_nothing_behind_and_the_old_bundle_in_place(
    quick: None, parts: BundleParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home.open(tmp_path / "home")
    old = write_bundle(home, parts)

    def fails(*_: Any) -> None:
        raise export.ExportError("probabilities differ")

    monkeypatch.setattr(export, "export_head", fails)
    with pytest.raises(export.ExportError):
        write_bundle(home, BundleParts(**{**vars(parts), "seed": 9}))
    assert sorted(child.name for child in home.bundles.iterdir()) == sorted([old.id, "latest.json"])
    assert latest_bundle(home).id == old.id


def test_a_place_that_cannot_be_written_is_one_clear_sentence(parts: BundleParts, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MetaDxError) as fault:
        write_bundle(tmp_path / "file" / "bundles", parts)
    assert fault.value.code == "not_writable"


def test_a_serving_head_or_a_mean_that_does_not_fit_is_refused(
    quick: None, parts: BundleParts, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="serving_head"):
        write_bundle(tmp_path, BundleParts(**{**vars(parts), "serving_head": "maml"}))
    with pytest.raises(ValueError, match="base_mean"):
        write_bundle(tmp_path, BundleParts(**{**vars(parts), "base_mean": np.zeros(3)}))


def test_a_bundle_is_loaded_and_used_without_torch_or_monai(bundle: Bundle) -> None:
    script = (
        "import sys, numpy as np\n"
        "from meta_dx.inference.bundle import Bundle, latest_bundle\n"
        "from meta_dx.inference.evidence import entropy, nearest_support\n"
        "from meta_dx.inference.predictor import Predictor\n"
        "from meta_dx.inference.support import adapted_state\n"
        "bundle = Bundle.load(sys.argv[1])\n"
        "options = bundle.image_options\n"
        "p = Predictor(bundle, device='auto', threads=1)\n"
        "pictures = np.zeros((4, options.channels, options.size, options.size), np.uint8)\n"
        "x = p.embed_studies(pictures, [np.array([0, 1]), np.array([2]), np.array([3])])\n"
        "print(p.predict(p.adapt(x[:2], [0, 1], 2), x[2:]).shape)\n"
        "print(sorted({'torch', 'monai', 'sklearn', 'dagster', 'great_expectations'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(bundle.path)],
        check=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.splitlines() == ["(1, 2)", "[]"]
    assert done.stderr == ""
