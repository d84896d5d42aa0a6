"""``meta-dx rejections``: which files were not taken and why, under the paths where they lie."""

from __future__ import annotations

from typing import Annotated

import typer

from meta_dx.cli.common import HomeOption, JsonOption, existing_home
from meta_dx.cli.output import emit_json, say, table


def rejections(
    code: Annotated[str | None, typer.Option(help="Only files with this code.")] = None,
    batch: Annotated[str | None, typer.Option(help="Only files of this ingest batch.")] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """List the files that were not taken: path, code, and what is wrong (docs/rejections.md)."""
    from meta_dx.dicom.rejections import RejectionCode
    from meta_dx.errors import MetaDxError
    from meta_dx.home import Home
    from meta_dx.records.vault import Vault

    codes = [str(known) for known in RejectionCode]
    if code is not None and code not in codes:
        raise MetaDxError("unknown_code", f"There is no code '{code}': it is one of {', '.join(codes)}.")
    files = Vault.open(Home.open(existing_home(home))).known_files(batch)
    found = [
        {
            "path": file.path,
            "batch": file.batch,
            "code": file.code,
            "reason": RejectionCode(file.code).sentence,
        }
        for _, file in sorted(files.items())
        if file.code is not None and code in (None, file.code)
    ]
    if json:
        emit_json(found)
        return
    table(["file", "batch", "code", "what is wrong"], [list(row.values()) for row in found])
    say(f"{len(found)} files were not taken; mend or replace them where they lie and ingest again")
