"""A real archive for tests: Orthanc with its DICOMweb plugin, on free loopback ports and with a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

USER, PASSWORD = "night", "Owl-4711-secret"
AE_TITLE, OUR_TITLE = "ORTHANC", "META_DX"
PROGRAM = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Orthanc:
    folder: Path
    http: int = field(default_factory=free_port)
    dimse: int = field(default_factory=free_port)
    listener: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def dicomweb(self) -> str:
        return f"dicomweb+http://127.0.0.1:{self.http}/dicom-web"

    @property
    def dimse_address(self) -> str:
        return f"dimse://{AE_TITLE}@127.0.0.1:{self.dimse}"

    def start(self) -> None:
        if not Path(PROGRAM).exists() or not PLUGIN.exists():
            pytest.skip(
                "Orthanc and its DICOMweb plugin are not installed (Debian: orthanc orthanc-dicomweb)"
            )
        storage = self.folder / "storage"
        storage.mkdir(parents=True, exist_ok=True)
        config = {
            "Name": "test",
            "StorageDirectory": str(storage),
            "IndexDirectory": str(storage),
            "Plugins": [str(PLUGIN)],
            "HttpPort": self.http,
            "DicomPort": self.dimse,
            "DicomAet": AE_TITLE,
            "DicomCheckCalledAet": True,
            # It listens on every interface and cannot be told otherwise: so it must let in nobody but us.
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD},
            **{f"DicomAlwaysAllow{what}": False for what in ("Echo", "Find", "Get", "Move", "Store")},
            "DicomCheckModalityHost": True,
            "DicomModalities": {
                "us": [OUR_TITLE, "127.0.0.1", self.listener],
                "modality": ["SENDER", "127.0.0.1", free_port()],
                "looker": {
                    "AET": "LOOKER",
                    "Host": "127.0.0.1",
                    "Port": free_port(),
                    "AllowStore": False,
                },
            },
            **self.more,
            "OverwriteInstances": True,
            "MaximumStorageCacheSize": 0,  # so that a file that is gone is gone
            "WebDavEnabled": False,
            "OrthancExplorerEnabled": False,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (self.folder / "orthanc.json").write_text(json.dumps(config))
        with (self.folder / "orthanc.log").open("ab") as log:
            self.process = subprocess.Popen(
                [PROGRAM, str(self.folder / "orthanc.json")],
                stdout=log,
                stderr=log,
                env={**os.environ, "TCP_NODELAY": "1"},
            )
        until = time.monotonic() + 60
        while time.monotonic() < until and self.process.poll() is None:
            try:
                if self.rest("GET", "/system"):
                    return
            except requests.ConnectionError:
                time.sleep(0.05)
        raise RuntimeError(f"Orthanc did not start: {(self.folder / 'orthanc.log').read_text()[-2000:]}")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=60)
            self.process = None

    def rest(self, method: str, path: str, **options: Any) -> Any:
        answer = requests.request(
            method, f"http://127.0.0.1:{self.http}{path}", auth=(USER, PASSWORD), timeout=30, **options
        )
        answer.raise_for_status()
        return answer.json()

    def put(self, files: Iterable[Path]) -> None:
        for file in files:
            self.rest("POST", "/instances", data=file.read_bytes())

    def instances(self) -> dict[str, str]:
        """SOP instance UIDs of what it holds, with its own names for them."""
        return {
            self.rest("GET", f"/instances/{name}/simplified-tags")["SOPInstanceUID"]: name
            for name in self.rest("GET", "/instances")
        }

    def file(self, name: str) -> bytes:
        """The file of an instance, as Orthanc hands it out."""
        answer = requests.get(
            f"http://127.0.0.1:{self.http}/instances/{name}/file", auth=(USER, PASSWORD), timeout=30
        )
        answer.raise_for_status()
        return answer.content

    def empty(self) -> None:
        for patient in self.rest("GET", "/patients"):
            self.rest("DELETE", f"/patients/{patient}")


def forgetful(folder: Path) -> Orthanc:
    """An Orthanc that answers to whatever is sent that all is well, and keeps nothing."""
    script = folder / "forget.lua"
    script.write_text("function ReceivedInstanceFilter(dicom, origin, info) return false end\n")
    return Orthanc(folder, more={"LuaScripts": [str(script)]})
