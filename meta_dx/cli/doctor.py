"""``meta-dx doctor``: what this machine can do, and what to do about what is missing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from meta_dx.cli.output import emit_json, say
from meta_dx.errors import MetaDxError
from meta_dx.home import DEFAULT_HOME

_GIB = 1024**3


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's answer: ``state`` is "ok", "note" (works, could be better) or "fault"."""

    what: str
    state: str
    answer: str
    advice: str = ""


def doctor(
    home: Annotated[
        Path | None, typer.Option(help="Home to look at; META_DX_HOME or .meta_dx if absent.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Say what this machine can do, and what to do about what is missing."""
    root = Path(home or os.environ.get("META_DX_HOME") or DEFAULT_HOME)
    findings = [_machine(), *_training(), *_runtime(), *_decoders(), _readers(), _disk(root), *_home(root)]
    if json:
        emit_json({"findings": [vars(finding) for finding in findings]})
    else:
        marks = {"ok": "ok   ", "note": "note ", "fault": "FAULT"}
        for finding in findings:
            say(f"{marks[finding.state]}  {finding.what:<16} {finding.answer}")
            if finding.advice:
                say(f"{'':<24}→ {finding.advice}")
    faults = [finding.what for finding in findings if finding.state == "fault"]
    if faults:
        raise MetaDxError("machine", f"This machine needs mending: {', '.join(faults)} (see above).")


def _machine() -> Finding:
    cores = os.cpu_count() or 1
    return Finding(
        "machine",
        "ok",
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, {cores} cores",
    )


def _training() -> list[Finding]:
    import torch

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name(0)
        return [Finding("training", "ok", f"torch {torch.__version__} on {name}")]
    advice = (
        "" if torch.version.cuda else "this is PyTorch's CPU build; for a GPU install the CUDA build (README)"
    )
    return [Finding("training", "note", f"torch {torch.__version__} on the CPU", advice)]


def _runtime() -> list[Finding]:
    from meta_dx.inference.providers import working_providers

    working = working_providers()
    if "CUDAExecutionProvider" in working:
        return [Finding("ONNX Runtime", "ok", f"runs on {', '.join(working)}")]
    advice = (
        "CUDA needs an NVIDIA driver, CUDA 12/13 and cuDNN 9 beside onnxruntime-gpu; predictions work without"
    )
    return [Finding("ONNX Runtime", "note", f"runs on {', '.join(working)}", advice)]


def _decoders() -> list[Finding]:
    from pydicom.pixels import get_decoder
    from pydicom.uid import AllTransferSyntaxes

    able: list[str] = []
    unable: list[str] = []
    for syntax in AllTransferSyntaxes:
        try:
            decoder = get_decoder(syntax)
        except NotImplementedError:  # video, which is not read as pictures
            continue
        (able if decoder.is_available else unable).append(syntax.name)
    findings = [Finding("decoders", "ok", f"{len(able)} of {len(able) + len(unable)} transfer syntaxes")]
    if unable:
        findings.append(
            Finding(
                "decoders",
                "note",
                f"missing: {', '.join(unable)}",
                "such files are rejected as unsupported_transfer_syntax",
            )
        )
    return findings


def _readers() -> Finding:
    program = (
        "from meta_dx.dicom.confinement import confine; held = confine(); print(held.landlock, held.seccomp)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)  # noqa: S603
    landlock, _, seccomp = ran.stdout.strip().partition(" ")
    if landlock.isdigit() and landlock != "0" and seccomp == "True":
        return Finding("readers", "ok", f"cannot write files or use a network (Landlock {landlock}, seccomp)")
    return Finding(
        "readers",
        "note",
        "this kernel does not keep the processes that read files from writing or from the network",
        "Linux 6.7 or newer on x86-64 or ARM does, where a container's own rules allow Landlock; "
        "else use an account with few rights for ingest",
    )


def _disk(root: Path) -> Finding:
    existing = next(folder for folder in [root.resolve(), *root.resolve().parents] if folder.exists())
    free = shutil.disk_usage(existing).free / _GIB
    if not os.access(existing, os.W_OK):
        return Finding("disk", "fault", f"{existing} is not writable", "choose another folder with --home")
    if free < 2:
        return Finding(
            "disk",
            "fault",
            f"{free:.1f} GiB free at {existing}",
            "free at least 2 GiB, or choose --home elsewhere",
        )
    return Finding("disk", "ok", f"{free:.0f} GiB free at {existing}")


def _home(root: Path) -> list[Finding]:
    from meta_dx.home import Home

    if not (root / "home.json").exists():
        return [
            Finding("home", "note", f"{root} does not exist yet", "'make run' or 'meta-dx ingest' creates it")
        ]
    opened = Home.open(root)
    size = sum(f.stat().st_size for f in root.rglob("*") if f.is_file()) / 1024**2
    cohort = f"cohort '{opened.cohort}'" if opened.cohort else "of no cohort yet"
    findings = [Finding("home", "ok", f"{root}, {cohort}, {size:.0f} MiB")]
    mode = opened.private.stat().st_mode & 0o077
    if mode:
        findings.append(
            Finding("identity vault", "fault", "others may read it", f"chmod -R go-rwx {opened.private}")
        )
    return findings
