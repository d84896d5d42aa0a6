"""A run of the pipeline in which a library fails at one place, with a message that quotes a patient's file.

    python -m tests.pipelines.failing_run FAULT run|job COHORT HOME

*run* is ``make run``; *job* executes the job of that part as Dagster's UI does, with Dagster's chatter on the console.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

from meta_dx.cohort.validation import runner
from meta_dx.cohort.validation.checks import CheckSpec, CheckTable
from tests.dicom.planted import DATE, TIME, TOKEN, UID

_REAL_VALIDATE = runner._validate
_QUOTED = f"'{TOKEN}^{TOKEN}', born {DATE}, {TIME}, in study {UID}.1"


def _raise(*_: Any, **__: Any) -> Any:
    """Raise as a library does: the second fault while the first is handled, each with values of its own."""
    try:
        {}[f"{UID}.7"]
    except KeyError:
        fault = ValueError(f"could not convert string to float: {_QUOTED}")
        fault.add_note(f"row of {TOKEN}7")
        raise fault  # noqa: B904 - what it was raised in the place of is told, too


def _unreadable(_: Any, files: Any, **__: Any) -> Any:
    raise OSError(errno.EIO, "Input/output error", files[0].place)


def _denied(_: Any, files: Any, **__: Any) -> Any:
    raise PermissionError(errno.EACCES, "Permission denied", files[0].place)


def _unknown(_: Any, file: Any, result: Any) -> Any:
    raise TypeError(f"unhashable: {result!r} of {file!r}")


class _Value:
    """A value of a table that quotes a file when Great Expectations compares it."""

    __lt__ = __le__ = __gt__ = __ge__ = _raise


def _validate(table: CheckTable, checks: Sequence[CheckSpec], name: str) -> Any:
    columns = [check.column for check in checks if check.column and "max_value" in check.settings]
    frame = table.frame.assign(**{column: _Value() for column in columns})
    return _REAL_VALIDATE(replace(table, frame=frame), checks, name)


@dataclass(frozen=True)
class Fault:
    """What fails in which job.

    Parameters
    ----------
    job : str
        The job.
    place : str
        What is replaced.
    instead : callable
        By what.
    told : str
        What is to be told of it.
    anew : tuple of str
        Stores of a finished home without which the job comes to that place; None: in a new home.
    """

    job: str
    place: str
    instead: Callable[..., Any]
    told: str = "builtins.ValueError"
    anew: tuple[str, ...] | None = None


_READ = "meta_dx.dicom.sandbox.Reader.read"
FAULTS = {
    "nothing": Fault("inbox_job", "builtins.print", print),
    "reader": Fault("ingest_job", _READ, _unreadable, "builtins.OSError"),
    "denied": Fault("ingest_job", _READ, _denied, "builtins.PermissionError"),
    "books": Fault("ingest_job", "meta_dx.cohort.ledger.Ledger.enter", _unknown, "builtins.TypeError"),
    "looking": Fault("ingest_job", "meta_dx.cohort.scans.found_files", _raise),
    "expectation": Fault(
        "ingest_job",
        "meta_dx.cohort.validation.runner._validate",
        _validate,
        "builtins.RuntimeError",
        ("validation",),
    ),
    "diagnoses": Fault("train_job", "meta_dx.cohort.diagnoses._translated", _raise, anew=("diagnoses",)),
    "pictures": Fault("train_job", "meta_dx.dicom.sandbox.Reader.ask", _raise, anew=("images",)),
    "training": Fault("train_job", "torch.nn.functional.cross_entropy", _raise, anew=("checkpoints",)),
    "prediction": Fault(
        "predict_job", "onnxruntime.InferenceSession.run", _raise, anew=("states", "records.sqlite")
    ),
}


def main() -> int:
    fault, how, cohort, home = sys.argv[1:]
    chosen = FAULTS[fault]
    sys.argv[1:] = []
    os.environ.update(META_DX_COHORT=cohort, META_DX_HOME=home)
    with mock.patch(chosen.place, chosen.instead):
        from pipelines.run import main as run

        return run() if how == "run" else _execute(chosen.job)


def _execute(job: str) -> int:
    from pipelines.definitions import defs
    from pipelines.instance import open_instance

    partition = None if job == "train_job" else "b0001"
    with open_instance() as instance:
        instance.add_dynamic_partitions("ingest_batch", ["b0001"])
        done = defs.resolve_job_def(job).execute_in_process(
            instance=instance, partition_key=partition, raise_on_error=False
        )
    return 0 if done.success else 1


if __name__ == "__main__":
    sys.exit(main())
