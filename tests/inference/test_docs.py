"""The examples in docs/bundle.md run, and say the same with meta_dx and without."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from meta_dx.inference.bundle import Bundle

DOCS = Path(__file__).parents[2] / "docs" / "bundle.md"


def test_the_examples_run_and_agree(bundle: Bundle, tmp_path: Path) -> None:
    plain, ours = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    (tmp_path / "bundle").symlink_to(bundle.path)
    check = "import sys\nassert not {'meta_dx', 'torch'} & set(sys.modules)\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{plain}\n{check}\n{ours}"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert lines[:2] == lines[2:]
    assert len(re.findall(r"\d\.\d*", done.stdout)) == 12


def test_every_file_of_a_bundle_is_explained(bundle: Bundle) -> None:
    text = DOCS.read_text()
    for file in bundle.path.rglob("*"):
        if file.is_file():
            name = file.relative_to(bundle.path).as_posix()
            assert f"`{re.sub(r'models/[a-z]+/', 'models/<head>/', name)}`" in text, name
