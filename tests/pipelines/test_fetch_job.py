"""Dagster fetches in a run of its own; its events hold counts, and nothing of the archive."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from assets.ingestion import fetched_instances
from assets.project import MetaDx
from pipelines.schedules import nightly_fetch
from tests.dicom.pacs.web_server import WebServer, few, serving


def cohort(folder: Path, source: str) -> MetaDx:
    (folder / "c.toml").write_text(f'[cohort]\nname = "c"\nsources = ["{source}"]\n')
    return MetaDx(cohort=str(folder / "c.toml"), home=str(folder / "home"))


def asked(meta_dx: MetaDx) -> dg.RunRequest | dg.SkipReason:
    at = datetime(2026, 1, 5, 0, 30, tzinfo=UTC)
    context = dg.build_schedule_context(resources={"meta_dx": meta_dx}, scheduled_execution_time=at)
    (answer,) = nightly_fetch(context)
    return answer


def test_the_schedule_asks_for_a_run_and_speaks_to_nobody(tmp_path: Path) -> None:
    with serving(WebServer(few())) as web:
        assert isinstance(asked(cohort(tmp_path, web.address)), dg.RunRequest)
        assert web.asked == []
    assert isinstance(asked(cohort(tmp_path, str(tmp_path))), dg.SkipReason)


def test_the_run_fetches_and_tells_counts(tmp_path: Path) -> None:
    with serving(WebServer(few())) as web:
        done = dg.materialize([fetched_instances], resources={"meta_dx": cohort(tmp_path, web.address)})
    (event,) = done.get_asset_materialization_events()
    told = event.materialization.metadata["archives"]
    assert isinstance(told, dg.TableMetadataValue)
    assert [dict(row.data) for row in told.records] == [
        {"archive": 1, "found": 3, "fetched": 3, "already_here": 0, "changed": 0}
    ]
    assert "1.2.1" not in str(done.all_events) and str(web.port) not in str(told)
