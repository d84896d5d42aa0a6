"""Serves the viewer and the style guide with drawn pictures, under the strictest policy that the pages need.

    python meta_dx/review/web/dev/server.py [port]

For development only; not part of the package.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import threading
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import phantom
from PIL import Image

HERE = Path(__file__).parent
STATIC = HERE.parents[1] / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
TYPES = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
}
AXIAL = [1, 0, 0, 0, 1, 0]


class State:
    """What the tests may change: how many answers of a kind fail."""

    failing = 1
    signed_in = True
    drafts: list[str] = []  # noqa: RUF012
    lock = threading.Lock()


def stack(name: str, label: str, count: int, start: float, *, flip: bool = False) -> dict[str, Any]:
    """Describe a stack of axial slices."""
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
        "frames": [
            {
                "url": f"/frames/{name}/{i}",
                "position": [-128, -128, start + phantom.THICK * i],
                "orientation": AXIAL,
            }
            for i in order
        ],
    }


def plain(
    name: str, label: str, modality: str, shape: tuple[int, int], count: int, **more: Any
) -> dict[str, Any]:
    """Describe pictures without a place in the patient."""
    return {
        "key": name,
        "label": label,
        "modality": modality,
        "color": False,
        "rows": shape[0],
        "columns": shape[1],
        "spacing": None,
        "window": None,
        "range": None,
        "frames": [
            {"url": f"/frames/{name}/{i}", "position": None, "orientation": None} for i in range(count)
        ],
    } | more


def images() -> dict[str, Any]:
    """Describe the case of the development server."""
    return {
        "studies": [
            {
                "key": "s0",
                "label": "current",
                "series": [
                    stack("ct", "CT · axial · 5.0 mm · 28 images", 28, 0.0),
                    plain(
                        "mr", "MR · 12 images", "MR", (256, 256), 12, spacing=[0.9, 0.9], range=[0.0, 40.0]
                    ),
                    plain("skin", "XC · colour · 1 image", "XC", (600, 600), 1, color=True),
                    plain("film", "CR · 1 image", "CR", (700, 700), 1, range=[0, 255]),
                    plain("torn", "OT · 5 images", "OT", (700, 700), 5, range=[0, 255]),
                ],
            },
            {
                "key": "s1",
                "label": "213 days earlier",
                "series": [stack("old", "CT · axial · 5.0 mm · 24 images", 24, 412.0, flip=True)],
            },
        ]
    }


@lru_cache(maxsize=256)
def pixels(name: str, index: int) -> tuple[np.ndarray, float, float]:
    """Return a frame with slope and intercept."""
    if name == "ct":
        return phantom.head(index, 0.16), 1, -1024
    if name == "old":
        return phantom.head(index + 2, 0.0, seed=1), 1, -1024
    if name == "mr":
        return phantom.magnetic(index), 1, 0
    if name == "skin":
        return phantom.skin(), 1, 0
    return phantom.film(), 1, 0


def thumbnail(number: int) -> bytes:
    """Draw a small picture of the head."""
    grey = phantom.head(11 + number, 0.1 + 0.03 * number, seed=number)[::3, ::3].astype(float)
    out = io.BytesIO()
    Image.fromarray(((grey - 1024) / 80 * 255).clip(0, 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Stay quiet."""

    def answer(self, body: bytes, kind: str, status: int = 200, **headers: str) -> None:
        """Send an answer."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the browser has given the request up
            self.wfile.write(body)

    def do_GET(self) -> None:
        """Answer a page, a file, the description or a frame."""
        path = self.path.split("?")[0]
        if found := re.fullmatch(r"/frames/(\w+)/(\d+)", path):
            return self.frame(found[1], int(found[2]))
        if found := re.fullmatch(r"/thumb/(\d)\.png", path):
            return self.answer(thumbnail(int(found[1])), "image/png")
        if path == "/cases/1/images":
            return self.answer(json.dumps(images()).encode(), "application/json")
        if path == "/cases/2/images":
            one = images()["studies"][0]
            body = {"studies": [{**one, "series": one["series"][:1]}]}
            return self.answer(json.dumps(body).encode(), "application/json")
        if path == "/echo":
            words = f"token {self.headers.get('X-CSRF-Token')}<script>window.evaluated = true</script>"
            return self.answer(words.encode(), TYPES[".html"])
        root, name = (
            (STATIC, path.removeprefix("/static/")) if path.startswith("/static/") else (HERE, path[1:])
        )
        file = (root / (name or "styleguide.html")).resolve()
        if not file.is_relative_to(root) or not file.is_file() or file.suffix not in TYPES:
            return self.answer(b"not found", "text/plain", 404)
        body = file.read_bytes()
        if file.suffix == ".html":
            body = page(body.decode()).encode()
        cache = "public, max-age=31536000, immutable" if root == STATIC else "no-store"
        return self.answer(body, TYPES[file.suffix], Cache_Control=cache)

    def do_POST(self) -> None:
        """Take a draft."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if not State.signed_in:
            return self.answer(b"", "text/plain", 401)
        State.drafts.append(body)
        return self.answer(b"{}", "application/json", X_Session_Expires_In="1800")

    def frame(self, name: str, index: int) -> None:
        """Answer one frame."""
        with State.lock:
            torn = name == "torn" and index == 3 and State.failing > 0
            State.failing -= torn
        if not State.signed_in:
            return self.answer(b"", "text/plain", 401)
        if torn:
            return self.answer(b"", "text/plain", 500)
        data, slope, intercept = pixels(name, index)
        return self.answer(
            data.tobytes(),
            "application/octet-stream",
            X_Frame_Dtype=data.dtype.name,
            X_Frame_Rows=str(data.shape[0]),
            X_Frame_Columns=str(data.shape[1]),
            X_Frame_Samples="3" if data.ndim == 3 else "1",
            X_Frame_Slope=str(slope),
            X_Frame_Intercept=str(intercept),
            Cache_Control="private, max-age=3600",
        )


def page(text: str) -> str:
    """Put the built files into a page of this folder."""
    entries = [
        entry for entry in json.loads((STATIC / "manifest.json").read_text()).values() if entry.get("isEntry")
    ]
    head = "".join(
        [f'<link rel="stylesheet" href="/static/{name}">' for entry in entries for name in entry["css"]]
        + [f'<script type="module" src="/static/{entry["file"]}"></script>' for entry in entries]
    )
    return text.replace("<!-- built -->", head)


def main(port: int = 8765) -> None:
    """Serve until interrupted."""
    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        print(f"http://127.0.0.1:{server.server_port}/styleguide.html and /case.html", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
