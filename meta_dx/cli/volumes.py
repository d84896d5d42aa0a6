"""``meta-dx volumes``: the volumes of every series of a home, and why the other frames are in none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from meta_dx.cli.common import HomeOption, JsonOption, existing_home
from meta_dx.cli.output import counted, emit_json, say, table


def volumes(
    reason: Annotated[str | None, typer.Option(help="Only what was left out under this code.")] = None,
    allow_tilt: Annotated[
        bool,
        typer.Option(
            "--allow-tilt", help="As with tilt = 'straighten' in section images of the cohort file."
        ),
    ] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """List the volumes of every series, and a reason for every frame that is in none (docs/volumes.md)."""
    from meta_dx.cohort.catalog import Catalog
    from meta_dx.cohort.volumes import volume_counts
    from meta_dx.dicom.volume_reasons import VolumeReason
    from meta_dx.errors import MetaDxError
    from meta_dx.home import Home
    from meta_dx.records.vault import Vault

    codes = [str(known) for known in VolumeReason]
    if reason is not None and reason not in codes:
        raise MetaDxError("unknown_code", f"There is no code '{reason}': it is one of {', '.join(codes)}.")
    opened = Home.open(existing_home(home))
    found = Catalog(opened).volumes(allow_tilt=allow_tilt)
    counts = volume_counts(found)
    shown = found if reason is None else found[found["reason"] == reason]
    originals = Vault.open(opened).originals("series", shown["series"].tolist())
    rows = [_plain(row, originals) for row in shown.to_dict("records")]
    if json:
        emit_json({"counts": counts, "parts": rows})
        return
    lines = [
        [
            row["series_instance_uid"],
            row["modality"],
            row["reason"] or " x ".join(map(str, row["shape"] or ())),
            row["phase"],
            row["detail"] or _in_mm(row["spacing_mm"]),
            row["frames"],
        ]
        for row in rows
    ]
    titles = ["series", "modality", "volume, or why none", "phase", "spacing, or what is wrong", "frames"]
    table(titles, lines)
    left = sum(n for code, n in counts.items() if code not in ("volumes", "frames_in_volumes"))
    volumes_found = counted(counts["volumes"], "volume", "volumes")
    within = counted(counts["frames_in_volumes"], "frame", "frames")
    say(f"{volumes_found} of {within}; {counted(left, 'frame is', 'frames are')} in none")


def _plain(row: dict[Any, Any], originals: Mapping[str, str]) -> dict[str, Any]:
    """Return a row of the volumes table as it is printed, under its original series."""
    sound = row["volume"] is not None and row["slices"] > 0
    return {
        "series_instance_uid": originals.get(row["series"], row["series"]),
        "modality": row["modality"],
        "reason": None if sound else row["reason"],
        "detail": row["detail"],
        "phase": row["phase"],
        "frames": int(row["frames"]),
        "shape": [int(row[name]) for name in ("slices", "rows", "columns")] if sound else None,
        "spacing_mm": [row[f"spacing_{name}"] for name in ("slices", "rows", "columns")] if sound else None,
        "affine_lps": list(row["affine"]) if sound else None,
    }


def _in_mm(spacing: list[float] | None) -> str:
    return " x ".join(f"{side:.4g}" for side in spacing) + " mm" if spacing else ""
