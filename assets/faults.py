"""What a failure of an asset, a sensor or a schedule leaves in Dagster's tables: nothing that a library has said."""

from __future__ import annotations

import errno
import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

import meta_dx.home as homes
from meta_dx.errors import MetaDxError
from meta_dx.faults import UnexpectedError, causes, told


def asset(**options: Any) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Declare an asset, as ``dagster.asset`` does, whose failures quote no file (see :func:`guarded`)."""
    return lambda function: dg.asset(**options)(guarded(function))


def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep what libraries say out of Dagster's events, which anyone may read.

    Parameters
    ----------
    function : callable
        Of an asset, a sensor or a schedule; it takes the resource ``meta_dx``.

    Returns
    -------
    callable
        It raises :class:`~meta_dx.errors.MetaDxError` as it is, without what led to it, and
        :class:`~meta_dx.faults.UnexpectedError` for everything else.
    """
    signature = inspect.signature(function)

    def home(arguments: tuple[Any, ...], options: dict[str, Any]) -> Path:
        return Path(signature.bind(*arguments, **options).arguments["meta_dx"].home)

    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def generate(*arguments: Any, **options: Any) -> Iterator[Any]:
            with _told(home(arguments, options)):
                yield from function(*arguments, **options)

        return generate

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        with _told(home(arguments, options)):
            return function(*arguments, **options)

    return call


@contextmanager
def _told(home: Path) -> Iterator[None]:
    try:
        yield
    except MetaDxError as fault:
        raise fault from None
    except Exception as fault:
        known = machine_fault(fault, home)
        raise known or UnexpectedError(told(fault, home)) from None


def machine_fault(fault: BaseException, home: Path) -> MetaDxError | None:
    """Recognise a full, read-only or forbidden disk, whether a file or one of Dagster's tables met it.

    Parameters
    ----------
    fault : BaseException
        What was raised.
    home : Path
        The home; named where a fault of its disk names no file in it.
    """
    return next(filter(None, (_machine_fault(one, home) for one in causes(fault))), None)


def _machine_fault(fault: BaseException, home: Path) -> MetaDxError | None:
    from meta_dx.records.sqlite import storage_error

    if isinstance(fault, OSError):
        where = _written(fault, home)
        return None if where is None else homes.storage_fault(fault, where)
    return storage_error(getattr(fault, "orig", fault), f"Dagster's tables in {home / 'dagster'}")


def _written(fault: OSError, home: Path) -> Path | None:
    """Return what could not be written; None where it may be that a hospital's file could not be read."""
    if not isinstance(fault.filename, str):
        return home
    full = fault.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
    return Path(fault.filename) if full or Path(fault.filename).is_relative_to(home) else None
