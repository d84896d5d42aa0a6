"""A provider counts when it runs, not when it is listed; and nothing is said behind the user's back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from meta_dx.errors import MetaDxError
from meta_dx.inference import providers
from meta_dx.inference.providers import choose_providers, open_session, runs, working_providers

really_open = providers._open


def small() -> bytes:
    return providers._small_graph()


def falls_back(model: Path | bytes, asked: providers.Providers, threads: int) -> onnxruntime.InferenceSession:
    """What ONNX Runtime does when CUDA does not start: a session on the CPU, and no error."""
    return really_open(model, [providers.CPU], threads)


def test_the_cpu_always_works() -> None:
    assert working_providers()[-1] == "CPUExecutionProvider"
    session = open_session(small(), "cpu", threads=1)
    (answer,) = session.run(None, {"x": np.full((5, 3), 2.0, dtype=np.float32)})
    assert answer.tolist() == [[6.0, 6.0]] * 5


def test_auto_takes_the_fastest_provider_that_works() -> None:
    session = open_session(small(), "auto")
    assert session.get_providers()[0] == working_providers()[0]


def test_cuda_that_does_not_run_is_an_error_when_it_is_demanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "runs", lambda name: name == providers.CPU)
    with pytest.raises(MetaDxError, match="device") as fault:
        open_session(small(), "cuda")
    assert fault.value.code == "no_cuda"
    assert working_providers() == ["CPUExecutionProvider"]


def test_a_provider_that_is_listed_but_falls_back_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "_open", falls_back)
    assert "CUDAExecutionProvider" not in [
        n for n in onnxruntime.get_available_providers() if runs.__wrapped__(n)
    ]


def test_a_session_that_falls_back_by_itself_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe says yes and the session still falls back: as when another process has taken the memory."""
    monkeypatch.setattr(providers, "runs", lambda name: True)
    monkeypatch.setattr(providers, "_open", falls_back)
    assert open_session(small(), "auto").get_providers() == ["CPUExecutionProvider"]
    with pytest.raises(MetaDxError) as fault:
        open_session(small(), "cuda")
    assert fault.value.code == "no_cuda"


def test_cuda_is_asked_for_with_a_heuristic_search_and_full_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(providers, "runs", lambda name: True)
    first, second = choose_providers("cuda")
    assert first == ("CUDAExecutionProvider", dict(providers._CUDA_OPTIONS))
    assert providers._CUDA_OPTIONS["cudnn_conv_algo_search"] == "HEURISTIC"
    assert providers._CUDA_OPTIONS["use_tf32"] == "0"
    assert second == "CPUExecutionProvider"


def test_an_unknown_device_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(MetaDxError, match=r"tpu.*auto, cpu and cuda"):
        choose_providers("tpu")  # type: ignore[arg-type]


def test_a_file_that_is_no_model_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "encoder.onnx").write_bytes(b"not a model")
    for model in (tmp_path / "encoder.onnx", tmp_path / "absent.onnx"):
        with pytest.raises(MetaDxError, match=model.name) as fault:
            open_session(model, "cpu")
        assert fault.value.code == "bad_model"


def test_asking_for_cuda_puts_nothing_on_stdout_or_stderr() -> None:
    script = (
        "from meta_dx.inference import providers as p\n"
        "p.working_providers()\n"
        "p.runs = lambda name: True\n"
        "p.open_session(p._small_graph(), 'auto')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_the_session_is_an_onnx_runtime_session() -> None:
    assert isinstance(open_session(small(), "cpu"), onnxruntime.InferenceSession)
