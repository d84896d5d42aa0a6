"""``meta-dx rejections``: which files were not taken and why, under the paths where they lie."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Annotated

import typer

from meta_dx.cli.common import HomeOption, JsonOption, existing_home
from meta_dx.cli.output import emit_json, say, table

_COLUMNS = ("path", "batch", "outcome", "code", "reason")


def rejections(
    code: Annotated[
        list[str] | None, typer.Option(help="Only files with this code; may be repeated.")
    ] = None,
    batch: Annotated[str | None, typer.Option(help="Only files of this ingest batch.")] = None,
    outcome: Annotated[
        str | None, typer.Option(help="Only files counted so: rejected, not_dicom or duplicate.")
    ] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write the list to this file, readable by you alone.")
    ] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """List the files that were not taken: path, code, and what is wrong (docs/rejections.md)."""
    from meta_dx.dicom.rejections import RejectionCode
    from meta_dx.home import Home
    from meta_dx.records.vault import Vault

    wanted = _known("code", [str(one) for one in RejectionCode], code or [])
    outcomes = _known("outcome", ["rejected", "not_dicom", "duplicate"], [outcome] if outcome else [])
    files = Vault.open(Home.open(existing_home(home))).known_files(batch)
    found = [
        dict(
            zip(
                _COLUMNS,
                (path, one.batch, one.outcome, one.code, RejectionCode(one.code).sentence),
                strict=True,
            )
        )
        for path, one in sorted(files.items())
        if one.code is not None and one.code in wanted and one.outcome in outcomes
    ]
    if csv_file is not None:
        _write(csv_file, found)
    if json:
        emit_json(found)
        return
    if csv_file is None:
        table(["file", "batch", "outcome", "code", "what is wrong"], [list(row.values()) for row in found])
    where = "" if csv_file is None else f" (listed in {csv_file})"
    say(f"{len(found)} files were not taken{where}; mend or replace them where they lie and ingest again")


def _known(what: str, known: list[str], chosen: list[str]) -> list[str]:
    """Return what was chosen, all where nothing was."""
    from meta_dx.errors import MetaDxError

    for one in chosen:
        if one not in known:
            raise MetaDxError(
                f"unknown_{what}", f"There is no {what} '{one}': it is one of {', '.join(known)}."
            )
    return chosen or known


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    """Write the list; paths may carry the names of patients, so nobody else may read it."""
    from meta_dx.errors import MetaDxError
    from meta_dx.home import storage_faults

    if not path.absolute().parent.is_dir():
        raise MetaDxError(
            "folder_missing", f"{path} cannot be written: its folder does not exist, create it first."
        )
    with storage_faults(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.fchmod(descriptor, 0o600)
        with open(descriptor, "w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
            writer = csv.DictWriter(stream, _COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
