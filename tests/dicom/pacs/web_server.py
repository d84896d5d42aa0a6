"""A DICOMweb server in a few lines that does what real ones should not, one trouble at a time."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Trouble = Callable[["Handler"], bool]
"""Answers a request in place of the server and returns True, or leaves it to the server."""


def element(value: Any) -> dict[str, Any]:
    return {"vr": "UI", "Value": [value]}


@dataclass
class WebServer:
    """Instances as ``{study: {series: {instance: bytes}}}``; ``asked`` remembers the paths that were asked for."""

    content: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    trouble: Trouble | None = None
    counts: bool = True
    ignores_offset: bool = False
    most: int = 1_000_000
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    port: int = 0

    @property
    def address(self) -> str:
        return f"dicomweb+http://127.0.0.1:{self.port}/web"

    def retrieved(self) -> list[str]:
        return [path.rpartition("/")[2] for path in self.asked if path.count("/") == 7]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Any

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        world: WebServer = self.server.world
        parts = urlsplit(self.path)
        world.asked.append(parts.path)
        world.headers.append(dict(self.headers))
        if world.trouble is not None and world.trouble(self):
            return
        names = parts.path.strip("/").split("/")[1:]
        query = parse_qs(parts.query)
        if len(names) == 6:
            data = world.content[names[1]][names[3]].get(names[5])
            self.send_parts([] if data is None else [data])
            return
        entries = self.listed(world, names)
        size = min(int(query["limit"][0]), world.most)
        offset = 0 if world.ignores_offset else int(query["offset"][0])
        self.send(json.dumps(entries[offset : offset + size]).encode(), "application/dicom+json")

    def listed(self, world: WebServer, names: list[str]) -> list[dict[str, Any]]:
        if len(names) == 1:
            return [
                {"0020000D": element(uid), **self.count(world, "00201208", sum(map(len, series.values())))}
                for uid, series in world.content.items()
            ]
        if len(names) == 3:
            series = world.content[names[1]]
            return [
                {"0020000E": element(uid), **self.count(world, "00201209", len(members))}
                for uid, members in series.items()
            ]
        return [{"00080018": element(uid)} for uid in world.content[names[1]][names[3]]]

    @staticmethod
    def count(world: WebServer, tag: str, number: int) -> dict[str, Any]:
        return {tag: element(number)} if world.counts else {}

    def send_parts(self, parts: list[bytes], cut: int | None = None) -> None:
        body = b"".join(b"\r\n--line\r\nContent-Type: application/dicom\r\n\r\n" + part for part in parts)
        body += b"\r\n--line--"
        self.send(body, 'multipart/related; type="application/dicom"; boundary=line', cut=cut)

    def send(
        self, body: bytes, kind: str = "text/plain", status: int = 200, cut: int | None = None, **more: str
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in more.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)

    @property
    def fetching(self) -> bool:
        return self.path.count("/") == 7


@contextmanager
def serving(world: WebServer) -> Iterator[WebServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.world = world  # type: ignore[attr-defined]
    world.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield world
    finally:
        server.shutdown()
        server.server_close()


def few(studies: int = 1, images: int = 3) -> dict[str, dict[str, dict[str, bytes]]]:
    """Make instances that look like DICOM from outside; nothing here looks inside."""
    return {
        f"1.2.{s}": {
            f"1.2.{s}.1": {
                f"1.2.{s}.1.{i}": b"\0" * 128 + b"DICM" + bytes([s, i]) * 4000 for i in range(images)
            }
        }
        for s in range(1, studies + 1)
    }
