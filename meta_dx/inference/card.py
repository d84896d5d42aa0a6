"""What a bundle says about itself: MONAI's metadata fields, and a model card for people."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import meta_dx

#: Fields of MONAI's metadata schema that every bundle has.
SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
)
#: Said by everything that is exported.
RESEARCH_USE = "Research use only. Not a medical device; not for decisions about patients."


def metadata_of(ours: Mapping[str, Any], image_shape: tuple[int, ...]) -> dict[str, Any]:
    """Put together ``configs/metadata.json``.

    Parameters
    ----------
    ours : mapping
        The section ``meta_dx``.
    image_shape : tuple of int
        (C, *spatial) of a prepared picture.

    Returns
    -------
    dict
        MONAI's fields and ours; no date and no place, so that equal bundles have equal bytes.
    """
    channels, *spatial = image_shape
    image = {
        "type": "image",
        "format": "magnitude",
        "modality": "any",
        "num_channels": channels,
        "spatial_shape": spatial,
        "dtype": "uint8",
        "value_range": [0, 255],
        "is_patch_data": False,
        "channel_def": {str(i): "image" for i in range(channels)},
    }
    embedding = {
        "type": "feature",
        "format": "embedding",
        "num_channels": ours["embedding_size"],
        "spatial_shape": [],
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": {"0": "embedding"},
    }
    return {
        "schema": SCHEMA,
        "version": meta_dx.__version__,
        "changelog": {meta_dx.__version__: "exported by meta_dx"},
        "monai_version": package_version("monai"),
        "pytorch_version": package_version("torch"),
        "numpy_version": package_version("numpy"),
        "required_packages_version": {"onnxruntime": package_version("onnxruntime-gpu", "onnxruntime")},
        "name": f"meta_dx {ours['cohort']}".strip(),
        "task": "Few-shot diagnosis: tell diseases apart from a handful of confirmed cases of each",
        "description": (
            "An image encoder and heads that adapt to a support set without training: encoder.onnx embeds "
            "pictures, adapt.onnx turns confirmed cases into a state, predict.onnx answers from that state."
        ),
        "authors": "whoever trained it with meta_dx",
        "copyright": "whoever trained it with meta_dx",
        "intended_use": RESEARCH_USE,
        "data_type": "dicom",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": embedding}},
        "meta_dx": dict(ours),
    }


def model_card(metadata: Mapping[str, Any]) -> str:
    """Write ``docs/README.md`` from the metadata."""
    ours = metadata["meta_dx"]
    image = metadata["network_data_format"]["inputs"]["image"]
    roles = list(ours["diseases_seen"].values())
    figures = [_figure(name, value) for name, value in ours["validation"].items()]
    return _CARD.format(
        name=metadata["name"],
        use=metadata["intended_use"],
        description=metadata["description"],
        cohort=ours["cohort"] or "not named",
        data=ours["data_version"] or "not given",
        split=ours["split_version"],
        seed=ours["seed"],
        common=roles.count("common"),
        validation=roles.count("validation"),
        samples=ours["samples"],
        learner=_plain(ours["learner"]),
        backbone=_plain(ours["backbone"]),
        shape=" × ".join(str(size) for size in (image["num_channels"], *image["spatial_shape"])),
        figures="\n".join(figures) or "- no figures were given",
        heads="\n".join(_row(name, ours) for name in ours["heads"]),
    )


_CARD = """# {name}

**{use}**

{description}

## Intended use Research on recognising rare diseases from few confirmed cases, by people who can judge the
answer. It ranks the diseases that it is given; it cannot say that none of them is present.

## Training
- cohort {cohort}, data version {data}, split version {split}, seed {seed}
- {common} diseases trained on, {validation} chosen on (`configs/metadata.json` lists the codes): a test on
  one of them is no test
- learner: {learner}
- backbone: {backbone}
- pictures: {shape}, prepared as in `configs/preprocessing.json`

## Figures on the validation diseases
{figures}

## Calibration Probabilities are softmax(logits / T); a head with a latent variable averages them over {samples}
samples of it. ECE is that of the validation diseases (15 bins, classes weigh the same).

| head | log T | ECE before → after | answers |
|---|---|---|---|
{heads}

## Limits
- Calibrated on validation diseases of one cohort: with other scanners, in other hospitals, and with other
  numbers of cases or classes the probabilities may be off.
- The confirmed cases decide the answer: a wrong one among a few is a wrong model.
- Every class counts as equally frequent unless a prior is given.
"""


def _figure(name: str, value: Any) -> str:
    """Write one figure, or a table where there are rows of them."""
    if not (isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value)):
        return f"- {name}: {_short(value)}"
    columns = list(dict.fromkeys(column for row in value for column in row))
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join(_short(row.get(column, '')) for column in columns)} |" for row in value]
    return "\n".join([f"- {name}:", "", *lines, ""])


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _row(name: str, ours: Mapping[str, Any]) -> str:
    fitted = ours["calibration"][name]
    mark = " (serves)" if name == ours["serving_head"] else ""
    change = (
        f"{fitted['ece_before']:.3f} → {fitted['ece_after']:.3f}" if fitted["queries"] else "not calibrated"
    )
    if fitted["at_bound"]:
        change += ", temperature at an end of its range: how sure to be is not known"
    return f"| {name}{mark} | {_law(fitted)} | {change} | {fitted['queries']} |"


def _law(calibration: Mapping[str, Any]) -> str:
    a, b, c, d = (calibration[name] for name in "abcd")
    return f"{a:+.3f} {b:+.3f}·log(shots) {c:+.3f}·log(ways) {d:+.3f}·log(1+1/shots)"


def _plain(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items()) or "not named"


def package_version(*names: str) -> str:
    """Return the version of the first of these packages that is installed, without its build."""
    for name in names:
        try:
            return version(name).split("+")[0]
        except PackageNotFoundError:
            continue
    return "unknown"
