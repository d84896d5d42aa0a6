"""How fast studies come from an archive, beside dcmtk and a bare loop over the same archive.

    OMP_NUM_THREADS=1 python benchmarks/pacs_speed.py [--images 200] [--side 512] [--rounds 3]

Starts a real Orthanc on the loopback (Debian: orthanc orthanc-dicomweb dcmtk), fills it with invented pictures, and
takes turns: ``getscu`` and a fetch by C-GET; a bare ``requests`` loop that keeps each answer whole and a fetch by
DICOMweb; ``storescu`` to dcmtk's ``storescp`` and to ``meta-dx receive``. The fetches list, check, land and remember
as they always do. Prints one line a way, with the rates of the fastest round of each and their ratio.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import requests

from meta_dx.cohort.fetch import fetch, landing_of
from meta_dx.dicom.pacs.address import ReceivedAddress
from meta_dx.dicom.pacs.credentials import PASSWORD_VARIABLE, USER_VARIABLE
from meta_dx.dicom.pacs.options import PacsOptions
from meta_dx.dicom.pacs.receive import ListenerOptions, listening
from meta_dx.home import Home
from tests.dicom.builders import picture, uid_of, write_instance
from tests.orthanc import AE_TITLE, OUR_TITLE, PASSWORD, USER, Orthanc, free_port

STUDY = uid_of("study")
AS_IT_IS = {
    "Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*',
    "Accept-Encoding": "identity",  # Orthanc would deflate each picture
}


def getscu(archive: Orthanc, folder: Path) -> None:
    """Fetch the study with dcmtk."""
    keys = ["-S", "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY}"]
    command = ["getscu", "-aet", OUR_TITLE, "-aec", AE_TITLE, *keys, "-od", str(folder)]
    subprocess.run([*command, "127.0.0.1", str(archive.dimse)], check=True, capture_output=True)


def bare_loop(archive: Orthanc, folder: Path) -> None:
    """Ask for each instance of a known list, in one connection, and keep the answers as they are."""
    with requests.Session() as session:
        session.auth = (USER, PASSWORD)
        root = f"http://127.0.0.1:{archive.http}/dicom-web"
        listed = session.get(f"{root}/studies/{STUDY}/instances", timeout=60).json()
        for number, entry in enumerate(listed):
            series, uid = entry["0020000E"]["Value"][0], entry["00080018"]["Value"][0]
            path = f"{root}/studies/{STUDY}/series/{series}/instances/{uid}"
            answer = session.get(path, headers=AS_IT_IS, timeout=60)
            (folder / str(number)).write_bytes(answer.content)


def storescu(files: Path, port: int) -> None:
    """Send the pictures with dcmtk."""
    command = ["storescu", "-aec", OUR_TITLE, "+sd", "127.0.0.1", str(port), str(files)]
    subprocess.run(command, check=True, capture_output=True)


def seconds(act: Callable[[Path], object], scratch: Path) -> float:
    """Time one act in a new folder."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    begun = time.perf_counter()
    act(folder)
    took = time.perf_counter() - begun
    shutil.rmtree(folder)
    return took


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    # Without the second, dcmtk's tools wait 40 ms for each acknowledgement, and the comparison says nothing.
    os.environ |= {USER_VARIABLE: USER, PASSWORD_VARIABLE: PASSWORD, "TCP_NODELAY": "1"}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        files = scratch / "files"
        for number in range(asked.images):
            shape = (asked.side, asked.side)
            write_instance(files, study="study", instance=f"i{number}", pixels=picture(number, shape))
        archive = Orthanc(scratch / "orthanc")
        archive.start()
        try:
            archive.put(sorted(files.iterdir()))
            report(archive, files, scratch, asked.rounds)
        finally:
            archive.stop()
    return 0


def report(archive: Orthanc, files: Path, scratch: Path, rounds: int) -> None:
    """Take turns and print the rates."""
    options, count = PacsOptions(), len(list(files.iterdir()))
    megabytes = sum(file.stat().st_size for file in files.iterdir()) / 1e6

    def fetched(source: str) -> Callable[[Path], object]:
        return lambda folder: fetch(Home.open(folder), source, options=options)

    ways = {
        "C-GET / getscu": (fetched(archive.dimse_address), lambda folder: getscu(archive, folder)),
        "DICOMweb / bare loop": (fetched(archive.dicomweb), lambda folder: bare_loop(archive, folder)),
    }
    for title, (ours, theirs) in ways.items():
        both = [(seconds(ours, scratch), seconds(theirs, scratch)) for _ in range(rounds)]
        line(title, count, megabytes, *(min(times) for times in zip(*both, strict=True)))
    received, stored = [], []
    for _ in range(rounds):
        landing = landing_of(Home.open(Path(tempfile.mkdtemp(dir=scratch))), ReceivedAddress())
        with listening(landing, ListenerOptions(port=0)) as listener:
            received.append(seconds(lambda _, port=listener.port: storescu(files, port), scratch))
        port, folder = free_port(), Path(tempfile.mkdtemp(dir=scratch))
        with subprocess.Popen(
            ["/usr/bin/storescp", "-od", str(folder), str(port)], stderr=subprocess.DEVNULL
        ) as process:
            time.sleep(0.5)
            stored.append(seconds(lambda _, port=port: storescu(files, port), scratch))
            process.terminate()
    line("receive / storescp", count, megabytes, min(received), min(stored))


def line(title: str, count: int, megabytes: float, ours: float, theirs: float) -> None:
    """Print one comparison."""
    rates = f"{count / ours:7.0f} and {count / theirs:7.0f} instances/s ({megabytes / ours:5.0f} and"
    sys.stdout.write(f"{title:<22}{rates} {megabytes / theirs:5.0f} MB/s), ratio {theirs / ours:.2f}\n")


if __name__ == "__main__":
    raise SystemExit(main())
