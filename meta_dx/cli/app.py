"""The command tree, and what each kind of failure does to the exit status."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import Annotated

import typer

import meta_dx
from meta_dx.cli import (
    adapted,
    data,
    deidentify,
    doctor,
    models,
    pacs,
    predictions,
    rejections,
    review,
    support,
    volumes,
)
from meta_dx.cli.common import home_root
from meta_dx.errors import MetaDxError
from meta_dx.faults import told

log = logging.getLogger("meta_dx")

app = typer.Typer(
    name="meta-dx",
    help="Few-shot diagnosis of rare diseases from DICOM studies. Research use only.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(data.init)
app.command()(data.phantom)
app.command("from-images")(data.from_images)
app.command()(data.ingest)
app.command()(pacs.fetch)
app.command()(pacs.receive)
app.command()(rejections.rejections)
app.command()(deidentify.deidentify)
app.command()(volumes.volumes)
app.command()(data.validate)
app.command()(models.train)
app.command()(models.export)
app.command("export-adapted")(adapted.export_adapted)
app.command()(models.evaluate)
app.command()(models.predict)
app.command()(predictions.predictions)
app.add_typer(support.app, name="support")
app.add_typer(data.split_app, name="split")
app.add_typer(review.app, name="review")
app.command()(doctor.doctor)


def _version(shown: bool) -> None:
    if shown:
        typer.echo(f"meta-dx {meta_dx.__version__}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Few-shot diagnosis of rare diseases from DICOM studies. Research use only."""


def run(arguments: list[str]) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : list of str
        As typed, without the program's name.

    Returns
    -------
    int
        Exit status: 0 done, 2 the user's fault with one clear line on stderr, 1 a fault of ours.
    """
    try:
        result = app(args=arguments, standalone_mode=False)
    except MetaDxError as fault:
        # Where torchrun's first process has stopped, that one says why.
        return 1 if fault.code == "first_process_stopped" else _refuse(str(fault))
    except OSError as fault:
        sentence = _of_disk(fault)
        return _refuse(sentence) if sentence else _fault_of_ours(fault, arguments)
    except KeyboardInterrupt:
        return _refuse("Stopped. Nothing is half written; run the same command again to go on.", status=130)
    except Exception as fault:
        return _usage(fault, arguments)
    return result if isinstance(result, int) else 0


def _of_disk(fault: OSError) -> str:
    """Say what the disk did, where that is the user's to mend."""
    where = fault.filename or "a file"
    if fault.errno == errno.EACCES:
        return f"No permission for {where}: ask for the right to read or write there, or name another place."
    if fault.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):
        return f"Cannot write {where}: {os.strerror(fault.errno).lower()}."
    return ""


def _usage(fault: Exception, arguments: list[str]) -> int:
    # Typer vendors its own click from 0.20 on: recognise its errors by what they offer, not by class.
    if hasattr(fault, "format_message") and hasattr(fault, "exit_code"):
        sentence = fault.format_message() or "Name a command."  # click says nothing where none is given
        return _refuse(f"{sentence} ('{_command_of(fault)} --help' lists what there is.)")
    if type(fault).__name__ in ("Abort", "Exit"):
        return int(getattr(fault, "exit_code", 1))
    return _fault_of_ours(fault, arguments)


def _command_of(fault: Exception) -> str:
    """Return the command, as typed, that click found wanting."""
    names: list[str] = []
    context = getattr(fault, "ctx", None)
    while context is not None and context.parent is not None:
        names.insert(0, context.info_name)
        context = context.parent
    return " ".join(["meta-dx", *names])


def _refuse(sentence: str, status: int = 2) -> int:
    log.error("meta-dx: %s", " ".join(sentence.split()))
    return status


def _fault_of_ours(fault: Exception, arguments: list[str]) -> int:
    log.error("meta-dx: %s", told(fault, _home_in(arguments)))
    log.error("meta-dx: the lines above say where. Nothing is half written.")
    return 1


def _home_in(arguments: list[str]) -> Path:
    """Return the home that a command was given, which may have failed before it looked."""
    for option, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if option == "--home" or option.startswith("--home="):
            return Path(option.partition("=")[2] or value)
    return home_root(None)
