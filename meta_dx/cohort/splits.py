"""The frozen split: which diseases and patients are for training, for choosing, and for testing, for good.

Input is the table of diagnosed studies of :mod:`meta_dx.cohort.selection`. The split lies in
``<home>/splits/v0001.json`` … as JSON that anyone can read; ``docs/splits.md`` has the rules. Diseases and
patients never change side: new data extend a split, and only :func:`thaw_split` ends it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from meta_dx.errors import MetaDxError
from meta_dx.home import Home, fingerprint_of, write_json

#: Train, choose, test; from the most to the fewest patients.
ROLES = ("common", "validation", "rare")
_FEWEST = 3  # patients without whom no episode can be drawn: one as support, two as queries
_THAWED = "thawed.json"


@dataclass(frozen=True)
class SplitOptions:
    """How diseases are divided; the section ``[split]`` of ``cohort.toml``.

    Parameters
    ----------
    common_min : int
        Diseases with at least this many patients are common (training); 0: only those listed.
    validation_min : int
        Of the others, those with at least this many patients are for validation; 0: only those listed.
    rare_min : int
        Of the others, those with at least this many patients are rare (test); 0: only those listed.
    common : tuple of str
        Codes that are common whatever their count.
    validation : tuple of str
        Codes that are for validation whatever their count.
    rare : tuple of str
        Codes that are rare whatever their count.
    version_note : str
        Free text that is kept with the split; may change at any time.
    """

    common_min: int = 30
    validation_min: int = 20
    rare_min: int = 5
    common: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    rare: tuple[str, ...] = ()
    version_note: str = ""

    def __post_init__(self) -> None:
        twice = sorted(
            {code for role in ROLES for code in getattr(self, role) if self.listed()[code] != role}
        )
        if twice:
            raise MetaDxError("bad_value", f"{', '.join(twice)} is listed under two roles: keep one.")
        thresholds = {f"{role}_min": int(getattr(self, f"{role}_min")) for role in ROLES}
        given = [least for least in thresholds.values() if least]
        if min(thresholds.values()) < 0 or given != sorted(given, reverse=True):
            raise MetaDxError(
                "bad_value",
                f"the thresholds are {', '.join(f'{name} = {least}' for name, least in thresholds.items())}:"
                " none may be negative, and they must go down in this order (0: only listed diseases).",
            )

    def listed(self) -> dict[str, str]:
        """Return code → role for the codes that are listed."""
        return {code: role for role in ROLES for code in getattr(self, role)}

    def role_of(self, patients: int) -> str | None:
        """Return the role of a disease that is not listed, by its number of patients."""
        for role in ROLES:
            least = getattr(self, f"{role}_min")
            if least and patients >= least:
                return role
        return None


@dataclass(frozen=True)
class Split:
    """One version of a frozen split.

    Parameters
    ----------
    version : str
        ``"v0001"`` and up; numbers are never used twice in a home.
    parent : str or None
        The version that this one extends.
    lineage : str
        First version since the last thaw; figures are comparable within one lineage only.
    diseases : dict of str to str
        Code → role.
    patients : dict of str to str
        Patient (not group) → role.
    since : dict of str to str
        Patient → version in which they were first assigned.
    options : SplitOptions
        The rule.
    created_from : dict
        What the version was made from: counts, a hash of the table, and what the caller added.
    """

    version: str
    parent: str | None
    lineage: str
    diseases: dict[str, str]
    patients: dict[str, str]
    since: dict[str, str]
    options: SplitOptions
    created_from: dict[str, Any]

    def codes(self, role: str) -> list[str]:
        """Return the sorted codes of a role."""
        return sorted(code for code, its_role in self.diseases.items() if its_role == role)

    def sides(self, groups: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the role of each patient group: that of its longest-known patient.

        Near-duplicate images may join patients who already stand on different sides. Nobody changes side: the
        group stands where its oldest patient stands, and the studies of those who stand elsewhere are left
        out and counted when examples are selected.

        Parameters
        ----------
        groups : mapping of str to str, optional
            Patient → group; patients who are missing are their own group.
        """
        groups = groups or {}
        order = sorted(self.patients, key=lambda patient: (self.since[patient], patient))
        sides: dict[str, str] = {}
        for patient in order:
            sides.setdefault(groups.get(patient, patient), self.patients[patient])
        return sides

    def to_json(self) -> dict[str, Any]:
        """Return the form in which the split is stored."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Split:
        """Read the stored form."""
        options: dict[str, Any] = {
            name: tuple(given) if isinstance(given, list) else given
            for name, given in value["options"].items()
        }
        return cls(**{**value, "options": SplitOptions(**options)})


def freeze_split(
    home: Home,
    diagnosed: pd.DataFrame,
    options: SplitOptions,
    *,
    groups: Mapping[str, str] | None = None,
    created_from: Mapping[str, Any] | None = None,
) -> Split:
    """Make the first split of a home, or extend the current one by what is new.

    Parameters
    ----------
    home : Home
        Where the split is kept.
    diagnosed : DataFrame
        Columns ``study``, ``patient``, ``code``: one row per usable study with one diagnosis.
    options : SplitOptions
        The rule; may not change while a split is frozen.
    groups : mapping of str to str, optional
        Patient → near-duplicate group; a group counts as one patient.
    created_from : mapping, optional
        Versions of the inputs, kept for lineage.

    Returns
    -------
    Split
        The current split where nothing new can be assigned, otherwise a new version.

    Raises
    ------
    MetaDxError
        ``split_is_frozen``, ``unknown_disease_in_split`` or ``no_disease_for_role``.
    """
    current = current_split(home)
    if current:
        _refuse_changed_options(current, options)
    groups = dict(groups or {})
    group = diagnosed["patient"].map(lambda patient: groups.get(patient, patient))
    table = diagnosed.assign(group=group)[["study", "patient", "code", "group"]]
    diseases = _assign_diseases(table, options, current.diseases if current else {})
    patients = _assign_patients(table, diseases, current, groups)
    if not current:
        _refuse_empty_roles(table, diseases, patients, options)
    elif diseases == current.diseases and patients == current.patients:
        return current
    version = f"v{_last_number(home) + 1:04d}"
    known_since = current.since if current else {}
    split = Split(
        version=version,
        parent=current.version if current else None,
        lineage=current.lineage if current else version,
        diseases=dict(sorted(diseases.items())),
        patients=dict(sorted(patients.items())),
        since={patient: known_since.get(patient, version) for patient in sorted(patients)},
        options=options,
        created_from={
            **(created_from or {}),
            "studies": len(table),
            "patients": int(table["group"].nunique()),
            "diseases": int(table["code"].nunique()),
            "content": fingerprint_of(sorted(table.to_numpy().tolist())),
        },
    )
    write_json(home.splits / f"{version}.json", split.to_json())
    return split


def current_split(home: Home) -> Split | None:
    """Return the split in force, or None before the first freeze and after a thaw."""
    last = _last_number(home)
    return read_split(home, f"v{last:04d}") if last > _last_thawed(home) else None


def read_split(home: Home, version: str) -> Split:
    """Read any version, thawed ones included.

    Raises
    ------
    MetaDxError
        ``no_such_split``.
    """
    path = home.splits / f"{version}.json"
    if not path.is_file():
        raise MetaDxError(
            "no_such_split", f"The home {home.root} has no split '{version}': see {home.splits}."
        )
    return Split.from_json(json.loads(path.read_text()))


def thaw_split(home: Home, reason: str) -> str:
    """End the frozen split; the next freeze starts anew and is not comparable with what was measured before.

    Parameters
    ----------
    home : Home
        Its split is thawed; the files stay readable.
    reason : str
        Why, for those who later wonder.

    Returns
    -------
    str
        The version that was thawed.

    Raises
    ------
    MetaDxError
        ``no_split`` when nothing is frozen, ``no_reason`` when none is given.
    """
    current = current_split(home)
    if not current:
        raise MetaDxError(
            "no_split", f"The home {home.root} has no frozen split, so there is nothing to thaw."
        )
    if not reason.strip():
        raise MetaDxError("no_reason", "Thawing invalidates every comparison made so far: give a reason.")
    entry = {
        "version": current.version,
        "lineage": current.lineage,
        "reason": reason.strip(),
        "thawed_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "consequence": f"figures measured on lineage {current.lineage} cannot be compared with later ones",
    }
    write_json(home.splits / _THAWED, [*thawed_splits(home), entry])
    return current.version


def thawed_splits(home: Home) -> list[dict[str, Any]]:
    """Return the record of every thaw, oldest first."""
    path = home.splits / _THAWED
    return list(json.loads(path.read_text())) if path.is_file() else []


def _last_number(home: Home) -> int:
    return max((int(path.stem[1:]) for path in home.splits.glob("v[0-9]*.json")), default=0)


def _last_thawed(home: Home) -> int:
    return max((int(entry["version"][1:]) for entry in thawed_splits(home)), default=0)


def _refuse_changed_options(current: Split, options: SplitOptions) -> None:
    changed = []
    for field in fields(SplitOptions):
        old, new = (getattr(each, field.name) for each in (current.options, options))
        if isinstance(old, tuple):
            old, new = sorted(set(old)), sorted(set(new))
        if old != new and field.name != "version_note":
            changed.append(f"{field.name} from {old} to {new}")
    if changed:
        raise MetaDxError(
            "split_is_frozen",
            f"[split] changes {'; '.join(changed)}, but split {current.version} is frozen: put the old values"
            " back, or thaw it with a reason (meta-dx split thaw), which makes earlier figures incomparable.",
        )


def _assign_diseases(table: pd.DataFrame, options: SplitOptions, known: Mapping[str, str]) -> dict[str, str]:
    """Return code → role: the known ones as they are, the others by list and by count of groups."""
    counts = {str(code): int(n) for code, n in table.groupby("code")["group"].nunique().items()}
    listed = options.listed()
    unknown = sorted(code for code in listed if code not in counts and code not in known)
    if unknown:
        raise MetaDxError(
            "unknown_disease_in_split",
            f"[split] lists {', '.join(unknown)}, but no usable study has this diagnosis: correct the code,"
            " or take it off the list.",
        )
    roles = dict(known)
    for code, patients in counts.items():
        role = listed.get(code) or options.role_of(patients)
        if role and code not in roles:
            roles[code] = role
    return roles


def _assign_patients(
    table: pd.DataFrame, diseases: Mapping[str, str], current: Split | None, groups: Mapping[str, str]
) -> dict[str, str]:
    """Return patient → role: the known as they are, the others with their group, or by scarcest disease."""
    sides = current.sides(groups) if current else {}
    scarcest: dict[str, str] = {}
    for group, code in table[["group", "code"]].drop_duplicates().itertuples(index=False):
        role = diseases.get(code)
        if role:
            scarcest[group] = max(role, scarcest.get(group, role), key=ROLES.index)
    patients = dict(current.patients) if current else {}
    for patient, group in table[["patient", "group"]].drop_duplicates().itertuples(index=False):
        side = sides.get(group) or scarcest.get(group)
        if side:
            patients.setdefault(patient, side)
    return patients


def _refuse_empty_roles(
    table: pd.DataFrame, diseases: Mapping[str, str], patients: Mapping[str, str], options: SplitOptions
) -> None:
    """Raise unless every role has a disease from which an episode can be drawn."""
    right_side = table["code"].map(diseases) == table["patient"].map(patients)
    usable = table[right_side].groupby("code")["group"].nunique()
    counts = table.groupby("code")["group"].nunique().sort_values(ascending=False)
    for role in ROLES:
        if any(usable.get(code, 0) >= _FEWEST for code in _with_role(diseases, role)):
            continue
        most = ", ".join(f"{code} {n}" for code, n in counts.head(8).items())
        raise MetaDxError(
            "no_disease_for_role",
            f"No disease can be used as '{role}': it needs {_needed(role, options)}, {_FEWEST} of them in no"
            f" scarcer role. Of {len(counts)} diseases those with most patients are: {most or 'none'}. Change"
            f" common_min, validation_min or rare_min under [split], or list codes in split.{role}.",
        )


def _needed(role: str, options: SplitOptions) -> str:
    """Return how many patients give a disease this role, in words."""
    least = getattr(options, f"{role}_min")
    if not least:
        return f"to be listed in split.{role}"
    before = [f"{name}_min" for name in ROLES[: ROLES.index(role)] if getattr(options, f"{name}_min")]
    most = f" and fewer than {getattr(options, before[-1])} ({before[-1]})" if before else ""
    return f"at least {least} ({role}_min){most} patients"


def _with_role(diseases: Mapping[str, str], role: str) -> Iterable[str]:
    return (code for code, its_role in diseases.items() if its_role == role)
