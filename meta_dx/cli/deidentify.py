"""``meta-dx deidentify``: a folder of DICOM files for others, by the profile of PS3.15."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from meta_dx.cli.common import (
    AllowOption,
    CohortOption,
    HomeOption,
    JsonOption,
    existing_home,
    ingest_options,
)
from meta_dx.cli.output import emit_json, say, table

_SHOWN = 20


def deidentify(
    source: Annotated[Path, typer.Argument(help="Folder with DICOM files; only read.")],
    out: Annotated[Path, typer.Argument(help="New or empty folder, or the result of an earlier run.")],
    home: HomeOption = None,
    key: Annotated[
        Path | None, typer.Option(help="File with a key of its own (made if absent) instead of a home's key.")
    ] = None,
    allow: AllowOption = None,
    age_and_sex: Annotated[bool, typer.Option(help="Retain PatientAge and PatientSex.")] = True,
    dates: Annotated[bool, typer.Option(help="Retain dates, shifted per patient.")] = True,
    times: Annotated[bool, typer.Option(help="Retain times of day too.")] = False,
    device: Annotated[bool, typer.Option(help="Retain maker and model.")] = True,
    descriptors: Annotated[bool, typer.Option(help="Retain descriptions made of safe words.")] = True,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that read; 0 for those of the cohort file, or one a core.")
    ] = 0,
    cohort: CohortOption = None,
    json: JsonOption = False,
) -> None:
    """Write de-identified copies of the pictures of a folder (PS3.15 Annex E; docs/deidentification.md)."""
    from meta_dx.cohort.catalog import Catalog
    from meta_dx.cohort.scans import without_dicom
    from meta_dx.cohort.seen import patients_of_studies
    from meta_dx.dicom.deidentified_folder import deidentify_folder
    from meta_dx.dicom.profile import ProfileOptions
    from meta_dx.home import Home
    from meta_dx.progress import bar
    from meta_dx.records.keys import key_file
    from meta_dx.records.vault import Vault

    # The limits of the cohort file, but not its ``allow``: what goes to others is named here.
    kept = replace(ingest_options(cohort, home), allow=tuple(allow or ()))
    options = ProfileOptions(age_and_sex, dates, times, device, descriptors)
    opened = None if key else Home.open(existing_home(home))
    vault = Vault.open(opened) if opened else None
    secret = vault.key if vault else key_file(key or Path())
    with bar("de-identifying") as progress:
        made = deidentify_folder(
            source,
            out,
            secret,
            options,
            limits=kept.limits,
            held=patients_of_studies(Catalog(opened), vault) if opened and vault else None,
            workers=workers or kept.workers,
            progress=progress,
        )
    if made.found == made.not_dicom:
        raise without_dicom(source, made.found)
    if vault:
        with vault.transaction():
            for kind, pairs in made.identities.items():
                vault.remember(kind, pairs)
    if json:
        emit_json({name: value for name, value in asdict(made).items() if name != "identities"})
        return
    say(f"found {made.found} = written {made.written} + unchanged {made.unchanged}")
    say(f"      + duplicates {made.duplicates} + not DICOM {made.not_dicom} + refused {len(made.files)}")
    if made.files:
        table(["file", "code", "what is wrong"], [[f.path, f.code, f.reason] for f in made.files[:_SHOWN]])
    if len(made.files) > _SHOWN:
        say(f"… and {len(made.files) - _SHOWN} more (--json lists all)")
