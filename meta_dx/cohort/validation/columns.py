"""Helper columns: facts about a row that only other rows know, as plain numbers and words.

A built-in expectation looks at one column at a time. "One study under two patients" becomes such a column:
how many patients the study of this row has.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import date

import numpy as np
import pandas as pd

_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))


def given(values: pd.Series) -> pd.Series:
    """Return the values as objects, with ``None`` where the cell is missing, empty or blank."""
    text = values.astype(object)
    missing = values.isna() | values.astype(str).str.strip().eq("")
    return text.where(~missing, None)


def distinct(frame: pd.DataFrame, by: str, of: str, at: pd.Series) -> pd.Series:
    """Count the different values of column ``of`` that share the value of column ``by``.

    Parameters
    ----------
    frame : DataFrame
        Where to count; rows in which either column is missing or blank do not count.
    by, of : str
        Columns.
    at : Series
        Values of ``by`` to look up.

    Returns
    -------
    Series of float
        The counts, aligned with ``at``; NaN where the value is missing or has nothing to count.
    """
    pairs = pd.DataFrame({"by": given(frame[by]), "of": given(frame[of])}).dropna().drop_duplicates()
    return given(at).map(pairs.groupby("by").size()).astype(float)


def fold(values: pd.Series) -> pd.Series:
    """Return text as a person reads it: case, invisible characters and runs of blanks make no difference."""
    return given(values).map(_folded, na_action="ignore")


def canonical_codes(codes: pd.Series) -> pd.Series:
    """Return each code in the one spelling that all its variants share.

    ``L40.0``, ``l40.0``, ``L40 .0`` and ``L400`` are one code; ``1.23`` and ``12.3`` are not: a dot is only
    dropped where the spelling without it stands in the table, too.
    """
    folded = fold(codes).map(lambda code: re.sub(r"[\s_-]", "", code), na_action="ignore")
    spellings = set(folded.dropna())
    return folded.map(
        lambda c: c.replace(".", "") if c.replace(".", "") in spellings else c, na_action="ignore"
    )


def days(values: pd.Series) -> pd.Series:
    """Parse ISO dates (``NaT`` where a cell is missing or no date)."""
    return pd.to_datetime(given(values), errors="coerce", format="ISO8601")


def date_place(values: pd.Series, today: date, first: date = date(1969, 1, 1)) -> pd.Series:
    """Say where each date lies: ``"plausible"``, ``"too early"``, ``"in the future"`` or ``"no date"``.

    Dates in the tables lie up to a year before the true ones (each patient's are shifted into the past).
    """
    text, parsed = given(values), days(values)
    place = np.select(
        [parsed.isna(), parsed < pd.Timestamp(first), parsed > pd.Timestamp(today)],
        ["no date", "too early", "in the future"],
        "plausible",
    )
    return pd.Series(place, index=values.index, dtype=object).where(text.notna(), None)


def words(condition: pd.Series | np.ndarray, bad: str, good: str, index: pd.Index) -> pd.Series:
    """Return ``bad`` where the condition holds and ``good`` elsewhere."""
    return pd.Series(np.where(np.asarray(condition, bool), bad, good), index=index, dtype=object)


def _folded(text: object) -> str:
    plain = unicodedata.normalize("NFKC", str(text)).translate(_INVISIBLE)
    return " ".join(plain.casefold().split())
