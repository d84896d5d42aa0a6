"""No asset, sensor or schedule lets what a library says into Dagster's tables; and the search for it would find it."""

import base64
import gzip
import sqlite3
import traceback
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import dagster as dg
import pandas as pd
import pytest

import assets
from assets.project import MetaDx
from meta_dx.errors import MetaDxError
from meta_dx.faults import UnexpectedError
from meta_dx.home import Home
from pipelines.schedules import nightly, nightly_fetch
from pipelines.sensors import inbox
from tests.dicom.planted import TOKEN, UID
from tests.pipelines.leaks import SECRETS, leaks, said


def quoting(*_: Any) -> NoReturn:
    try:
        raise KeyError(f"{UID}.7")
    except KeyError:
        raise ValueError(f"could not convert string to float: {TOKEN}")  # noqa: B904 - told as well


def refusing(*_: Any) -> NoReturn:
    try:
        quoting()
    except ValueError as fault:
        raise MetaDxError("sentence", "Mend it.") from fault


def told(fault: BaseException) -> str:
    return "".join(traceback.format_exception(fault))


@pytest.fixture
def meta_dx(tmp_path: Path) -> MetaDx:
    Home.open(tmp_path / "home")
    return MetaDx(cohort="none", home=str(tmp_path / "home"))


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as made:
        yield made


@pytest.mark.parametrize("asset", assets.all_assets(), ids=lambda asset: asset.key.to_user_string())
def test_a_failure_of_an_asset_quotes_nothing(
    asset: dg.AssetsDefinition, meta_dx: MetaDx, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = asset.op.compute_fn.decorated_fn  # type: ignore[union-attr]
    for fault, expected in ((quoting, UnexpectedError), (refusing, MetaDxError)):
        monkeypatch.setattr(MetaDx, "open", fault)
        with pytest.raises(expected) as raised:
            some = called(compute, context=SimpleNamespace(partition_key="b0001"), meta_dx=meta_dx)
            list(some)  # of a generator
        assert said(told(raised.value).encode()) == []
    assert str(raised.value) == "Mend it."
    (kept,) = (Path(meta_dx.home) / "private" / "faults").iterdir()
    assert TOKEN in kept.read_text() and UID in kept.read_text()


def called(function: Callable[..., Any], **arguments: Any) -> Any:
    names = function.__wrapped__.__code__.co_varnames[: function.__wrapped__.__code__.co_argcount]
    return function(**{name: arguments[name] for name in names})


@pytest.mark.parametrize("name", ["inbox", "nightly", "nightly_fetch"])
def test_a_failure_of_a_sensor_or_a_schedule_quotes_nothing(
    name: str, meta_dx: MetaDx, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MetaDx, "open", quoting)
    given = {"instance": instance, "resources": {"meta_dx": meta_dx}}
    night = datetime(2026, 1, 5, 2, 30, tzinfo=UTC)
    asked = {
        "inbox": lambda: inbox(dg.build_sensor_context(**given)),
        "nightly": lambda: nightly(dg.build_schedule_context(scheduled_execution_time=night, **given)),
        "nightly_fetch": lambda: nightly_fetch(
            dg.build_schedule_context(scheduled_execution_time=night, **given)
        ),
    }[name]
    with pytest.raises(UnexpectedError) as raised:
        list(asked())
    assert said(told(raised.value).encode()) == []


def leaking(kind: str) -> dg.AssetsDefinition:
    """Return an asset that says a token on purpose, in one of the ways in which an asset can."""

    def leaky(context: dg.AssetExecutionContext, meta_dx: MetaDx) -> Iterator[dg.MaterializeResult]:
        if kind == "error":
            raise ValueError(TOKEN)
        if kind == "what led to it":
            refusing()
        if kind == "log":
            context.log.info("read %s", TOKEN)
        if kind == "console":
            print(TOKEN.encode().hex())
        yield dg.MaterializeResult(metadata={"seen": TOKEN if kind == "metadata" else "nothing"})

    return dg.asset(leaky)


@pytest.mark.parametrize("kind", ["error", "what led to it", "log", "console", "metadata"])
def test_a_token_in_an_event_would_be_found(
    kind: str, tmp_path: Path, instance: dg.DagsterInstance, meta_dx: MetaDx
) -> None:
    resources = {"meta_dx": meta_dx}
    done = dg.materialize([leaking("none")], instance=instance, resources=resources)
    assert done.success and leaks(tmp_path) == {}
    dg.materialize([leaking(kind)], instance=instance, resources=resources, raise_on_error=False)
    found = leaks(tmp_path)
    assert found and all(TOKEN.encode() in secrets for secrets in found.values())
    assert any(where.endswith((".db", ".out", ".db-wal")) for where in found)


def packed_in(folder: Path, kind: str) -> None:
    """Hide the token in a folder."""
    path = folder / "leak"
    if kind == "parquet":
        pd.DataFrame({"a": [TOKEN] * 100}).to_parquet(path, compression="zstd")
    elif kind == "npz":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inner", gzip.compress(TOKEN.encode() * 9))
    elif kind == "gzip":
        path.write_bytes(gzip.compress(TOKEN.encode() * 9))
    elif kind in ("sqlite", "sqlite packed"):
        with closing(sqlite3.connect(path)) as database:
            database.execute("CREATE TABLE t (a)")
            value = TOKEN if kind == "sqlite" else zlib.compress(TOKEN.encode() * 9)
            database.execute("INSERT INTO t VALUES (?)", (value,))
            database.commit()
    else:
        (folder / TOKEN).write_text("")


@pytest.mark.parametrize("kind", ["parquet", "npz", "gzip", "sqlite", "sqlite packed", "name"])
def test_a_packed_token_would_be_found(tmp_path: Path, kind: str) -> None:
    packed_in(tmp_path, kind)
    assert len(leaks(tmp_path)) == 1


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize(
    "written",
    [
        lambda data: data,
        lambda data: data.decode().encode("utf-16-le"),
        lambda data: data.decode().encode("utf-16-be"),
        base64.b64encode,
        base64.urlsafe_b64encode,
        lambda data: data.hex().encode(),
        lambda data: data.hex().upper().encode(),
        lambda data: "".join(f"%{byte:02X}" for byte in data).encode(),
        lambda data: "".join(f"\\u{byte:04x}" for byte in data).encode(),
        bytes.lower,
    ],
)
@pytest.mark.parametrize("secret", SECRETS)
def test_an_encoded_secret_would_be_found(
    secret: bytes, written: Callable[[bytes], bytes], before: int
) -> None:
    assert secret in said(b"of " + written(b"x" * before + secret + b"tail"))
