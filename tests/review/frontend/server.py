"""Serves the viewer and the style guide with drawn pictures, under the headers of the real pages.

    python -m tests.review.frontend.server [port]    # after make web: /styleguide.html, /case.html, /login.html

For the tests beside it, and for whoever changes the front end and wants to look at it.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from meta_dx.review.rendering import STATIC, built_files
from meta_dx.review.security import HEADERS
from tests.review.frontend import phantom

PAGES = Path(__file__).with_name("pages")
TOKEN = "token-of-the-page"  # noqa: S105 # stands in the pages
TORN = 3  # frame of the series "torn" that fails as often as a test wishes
TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html; charset=utf-8"}
AXIAL = [1, 0, 0, 0, 1, 0]


def stack(
    name: str, label: str, count: int, start: float, frame: str, *, flip: bool = False
) -> dict[str, Any]:
    """Describe a stack of axial slices of CT that begins at a height, mm, in a frame of reference."""
    order = range(count - 1, -1, -1) if flip else range(count)
    return {
        "key": name,
        "label": label,
        "modality": "CT",
        "color": False,
        "rows": 512,
        "columns": 512,
        "spacing": [phantom.SPACING, phantom.SPACING],
        "window": {"center": 40, "width": 80},
        "range": [-1024, 3071],
        "frame_of_reference": frame,
        "frames": [
            {
                "url": f"/frames/{name}/{i}",
                "position": [-128, -128, start + phantom.THICK * i],
                "orientation": AXIAL,
            }
            for i in order
        ],
    }


def plain(name: str, label: str, modality: str, side: int, count: int, **more: Any) -> dict[str, Any]:
    """Describe square pictures without a place in the patient."""
    return {
        "key": name,
        "label": label,
        "modality": modality,
        "color": False,
        "rows": side,
        "columns": side,
        "spacing": None,
        "window": None,
        "range": None,
        "frame_of_reference": None,
        "frames": [
            {"url": f"/frames/{name}/{i}", "position": None, "orientation": None} for i in range(count)
        ],
    } | more


def images() -> dict[str, Any]:
    """Describe the case: today's study, and an earlier one for which the table stood elsewhere."""
    current = [
        stack("ct", "CT · axial · 5.0 mm · 28 images", 28, 0.0, "0"),
        plain("mr", "MR · 12 images", "MR", 256, 12, spacing=[0.9, 0.9], range=[0.0, 40.0]),
        plain("skin", "XC · colour · 1 image", "XC", 600, 1, color=True),
        plain("film", "CR · 1 image", "CR", 700, 1, range=[0, 255]),
        plain("torn", "OT · 5 images", "OT", 700, 5, range=[0, 255]),
    ]
    earlier = [stack("old", "CT · axial · 5.0 mm · 24 images", 24, 412.0, "1", flip=True)]
    return {
        "studies": [
            {"key": "s0", "label": "current", "series": current},
            {"key": "s1", "label": "213 days earlier", "series": earlier},
        ]
    }


@lru_cache(maxsize=256)
def frame(name: str, index: int) -> tuple[npt.NDArray[Any], int]:
    """Return the stored values of a frame, and what has to be added to them."""
    if name == "ct":
        return phantom.head(index, 0.16), -1024
    if name == "old":
        return phantom.head(index + 2, 0.0, seed=1), -1024
    if name == "mr":
        return phantom.magnetic(index), 0
    if name == "skin":
        return phantom.skin(), 0
    return phantom.film(), 0


def thumbnail(number: int) -> bytes:
    """Draw a small picture of the head."""
    grey = phantom.head(11 + number, 0.1 + 0.03 * number, seed=number)[::3, ::3].astype(float)
    out = io.BytesIO()
    Image.fromarray(((grey - 1024) / 80 * 255).clip(0, 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


class FrontEndServer(ThreadingHTTPServer):
    """Serves on loopback; what a test may change meanwhile, and what has been sent."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.signed_in = True
        self.failures = 0  # how often the torn frame is still to fail
        self.drafts: list[str] = []
        self.lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell of a fault, unless it is a browser that has gone."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def fails_now(self) -> bool:
        """Tell whether a request for the torn frame fails, and count it."""
        with self.lock:
            failing = self.failures > 0
            self.failures -= failing
            return failing


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: FrontEndServer

    def log_message(self, *_: object) -> None:
        """Stay quiet."""

    def answer(self, body: bytes, kind: str, status: int = 200, **headers: object) -> None:
        given = {name.replace("_", "-"): str(value) for name, value in headers.items()}
        given |= {"Content-Type": kind, "Content-Length": str(len(body))}
        self.send_response(status)
        for name, value in {**HEADERS, **given}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the browser has given the request up
            self.wfile.write(body)

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if found := re.fullmatch(r"/frames/(\w+)/(\d+)", path):
            self.answer_frame(found[1], int(found[2]))
        elif found := re.fullmatch(r"/thumb/(\d)\.png", path):
            self.answer(thumbnail(int(found[1])), "image/png")
        elif path == "/cases/1/images":
            self.answer(json.dumps(images()).encode(), "application/json")
        elif path == "/echo":
            words = f"token {self.headers.get('X-CSRF-Token')}<script>window.evaluated = true</script>"
            self.answer(words.encode(), TYPES[".html"])
        elif path.startswith("/static/"):
            self.answer_file(STATIC, path.removeprefix("/static/"))
        else:
            self.answer_file(PAGES, path.removeprefix("/") or "styleguide.html")

    def do_POST(self) -> None:
        """Take a draft."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if not self.server.signed_in:
            self.answer(b"", "text/plain", 401)
        elif self.headers.get("X-CSRF-Token") != TOKEN:
            self.answer(b"", "text/plain", 403)
        else:
            self.server.drafts.append(body)
            self.answer(b"{}", "application/json", X_Session_Expires_In=1800)

    def answer_file(self, root: Path, name: str) -> None:
        file = (root / name).resolve()
        if not file.is_relative_to(root) or not file.is_file() or file.suffix not in TYPES:
            self.answer(b"not found", "text/plain", 404)
        elif root == PAGES:
            self.answer(with_built_files(file.read_text()).encode(), TYPES[file.suffix])
        else:
            self.answer(file.read_bytes(), TYPES[file.suffix])

    def answer_frame(self, name: str, index: int) -> None:
        if name == "torn" and index == TORN and self.server.fails_now():
            self.answer(b"", "text/plain", 500)
            return
        data, intercept = frame(name, index)
        self.answer(
            data.tobytes(),
            "application/octet-stream",
            X_Frame_Dtype=data.dtype.name,
            X_Frame_Rows=data.shape[0],
            X_Frame_Columns=data.shape[1],
            X_Frame_Samples=3 if data.ndim == 3 else 1,
            X_Frame_Slope=1,
            X_Frame_Intercept=intercept,
        )


def with_built_files(page: str) -> str:
    """Put the scripts and the style sheet that ``make web`` has made into a page."""
    built = built_files()
    links = [f'<link rel="stylesheet" href="{name}">' for name in built["css"]]
    links += [f'<script type="module" src="{name}"></script>' for name in built["js"]]
    return page.replace("<!-- built -->", "".join(links))


@contextmanager
def serving() -> Iterator[FrontEndServer]:
    """Serve from a thread, on a free port."""
    with FrontEndServer() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


def main(port: int = 8765) -> None:
    """Serve until interrupted."""
    built_files()
    with FrontEndServer(port) as server, contextlib.suppress(KeyboardInterrupt):
        sys.stdout.write(f"{server.address}/styleguide.html, /case.html and /login.html (Ctrl-C ends them)\n")
        server.serve_forever()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
