"""``meta-dx rejections``: which files were not taken and why, under the paths where they lie."""

from __future__ import annotations

import csv
import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meta_dx.cli.common import HomeOption, JsonOption, existing_home, require_batch
from meta_dx.cli.output import counted, emit_json, say, table

if TYPE_CHECKING:
    from meta_dx.home import Home

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

    opened = Home.open(existing_home(home))
    wanted = _known("code", [str(one) for one in RejectionCode], code or [])
    outcomes = _known("outcome", ["rejected", "not_dicom", "duplicate"], [outcome] if outcome else [])
    if batch is not None:
        require_batch(opened, batch)
    found = [row for row in _listed(opened, batch) if row["code"] in wanted and row["outcome"] in outcomes]
    if csv_file is not None:
        _write(csv_file, found)
    if json:
        emit_json(found)
        return
    if csv_file is None:
        table(["file", "batch", "outcome", "code", "what is wrong"], [list(row.values()) for row in found])
    where = "" if csv_file is None else f" (listed in {csv_file})"
    say(f"{counted(len(found), 'file was', 'files were')} not taken{where}{_advice(opened, found)}")


def _advice(home: Home, found: list[dict[str, str]]) -> str:
    """Say what to do; what an archive sent and ingest refused does not lie anywhere any more."""
    incoming = (home.private / "incoming").resolve()
    gone = [row for row in found if incoming in (path := Path(row["path"])).parents and not path.exists()]
    advice = "; mend or replace them where they lie and ingest again" if len(found) > len(gone) else ""
    if gone:
        advice += f"; {len(gone)} came from an archive and are not kept: fetch with --again, or have them sent again"
    return advice


def _listed(home: Home, batch: str | None) -> list[dict[str, str]]:
    """Return the files that were not taken, by path.

    A finished batch lists what it refused, whatever a later one made of the file; without a batch, or while it is not
    finished, every file is listed as it was counted last.
    """
    from meta_dx.cohort.catalog import Catalog
    from meta_dx.dicom.identity import Surrogates
    from meta_dx.dicom.rejections import RejectionCode
    from meta_dx.records.vault import Vault

    catalog = Catalog(home)
    finished = catalog.batches()
    if batch is not None:
        finished = [batch] if batch in finished else []
    rows = catalog.rejections(finished).to_dict("records") if finished else []
    with closing(Vault.open(home)) as vault:
        if batch is not None and finished:
            paths = vault.originals("file", (row["file"] for row in rows))
            found = [{"path": paths.get(row["file"], row["file"]), **row} for row in rows]
        else:
            reasons = {(row["batch"], row["file"]): row["reason"] for row in rows}
            name = Surrogates(vault.key).file
            found = [
                {
                    "path": path,
                    "batch": one.batch,
                    "outcome": one.outcome,
                    "code": one.code,
                    "reason": reasons.get((one.batch, name(path)), RejectionCode(one.code).sentence),
                }
                for path, one in vault.known_files(batch).items()
                if one.code is not None
            ]
    return [{name: row[name] for name in _COLUMNS} for row in sorted(found, key=lambda row: row["path"])]


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
