"""Maps are made one at a time, and nobody waits for another's."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from meta_dx.records.opinions import Shown
from meta_dx.steps.insight import ProjectInsight

SHOWN = Shown(1, "b" * 64, 1)


def test_a_map_is_refused_while_another_is_made_and_a_kept_one_is_not(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    insight = ProjectInsight(SimpleNamespace(home=Home.open(tmp_path / "home")), None)  # type: ignore[arg-type]
    begun, goes_on = threading.Event(), threading.Event()

    def made(study: str, *_: object) -> str:
        if study == "slow":
            begun.set()
            assert goes_on.wait(30)
        return study

    monkeypatch.setattr(insight, "_made", made)
    assert insight.saliency("kept", SHOWN, "D0", 0) == "kept"
    thread = threading.Thread(target=insight.saliency, args=("slow", SHOWN, "D0", 0))
    thread.start()
    try:
        assert begun.wait(30)
        assert insight.saliency("kept", SHOWN, "D0", 0) == "kept"
        with pytest.raises(MetaDxError, match="try again") as refused:
            insight.saliency("other", SHOWN, "D0", 0)
        assert refused.value.code == "map_in_making"
    finally:
        goes_on.set()
        thread.join()
    assert insight.saliency("other", SHOWN, "D0", 0) == "other"
