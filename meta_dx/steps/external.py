"""A bundle on a folder of studies that no pipeline has seen: ``meta-dx evaluate`` and ``meta-dx predict``.

The folder is taken in like any other, into a home of its own (a temporary one unless the caller names one), with
the bundle's own preprocessing. Input tables and answers speak in original UIDs; in between there are surrogates.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.diagnoses import active_diagnoses, all_diagnoses, import_diagnoses
from meta_dx.cohort.examples import Examples
from meta_dx.cohort.ingest import IngestOptions
from meta_dx.cohort.selection import labelled_examples, unlabelled_examples, with_original_identifiers
from meta_dx.dicom.identity import Surrogates
from meta_dx.errors import MetaDxError
from meta_dx.evaluation.episodic import BASELINES
from meta_dx.home import Home
from meta_dx.progress import Progress, silent
from meta_dx.records.vault import Vault
from meta_dx.steps.answering import as_contract, picture_names, predicted_studies
from meta_dx.steps.taken import DEFAULT_LIMITS, Taken, prepared, taken_folder

if TYPE_CHECKING:
    from meta_dx.inference.bundle import Bundle
    from meta_dx.inference.evidence import EmbeddedStudies
    from meta_dx.inference.predictor import Predictor

log = logging.getLogger("meta_dx")

_CAP = 10  # confirmed patients of a disease, where the bundle does not say


def evaluate_folder(
    bundle: Bundle,
    studies: Path,
    diagnoses: Path,
    *,
    ways: int,
    shots: int,
    queries: int,
    episodes: int,
    seed: int,
    deployment: bool = False,
    cap: int | None = None,
    home: Path | None = None,
    device: str = "auto",
    progress: Progress = silent,
    allow: Sequence[str] = (),
    limits: IngestOptions = DEFAULT_LIMITS,
) -> dict[str, Any]:
    """Test a bundle on the diseases of a folder that it has never seen.

    Parameters
    ----------
    bundle : Bundle
        The bundle.
    studies : Path
        Folder with DICOM files.
    diagnoses : Path
        Table of their diagnoses.
    ways, shots, queries, episodes, seed : int
        The episodic protocol (docs/sampling.md).
    deployment : bool
        Also all diseases at once, up to ``cap`` confirmed patients each.
    cap : int, optional
        Most support patients of a disease in the deployment view; what the bundle's cohort serves with, or 10.
    home : Path, optional
        Home to use and keep.
    device : str
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    progress : Progress
        Called while files are read and episodes answered.
    allow : sequence of str
        Kinds of pictures to take although they may show whose they are, besides those of the bundle's cohort.
    limits : IngestOptions
        As for :func:`taken_folder`.

    Returns
    -------
    dict
        The object of ``meta-dx evaluate --json``.

    Raises
    ------
    MetaDxError
        From ingest, from the table, or ``too_few_diseases``.
    """
    from meta_dx.evaluation.deployment import evaluate_deployment
    from meta_dx.evaluation.episodic import evaluate_episodes
    from meta_dx.evaluation.record import contract
    from meta_dx.inference.predictor import Predictor

    predictor = Predictor(bundle, device=device)
    heads = serving_first(bundle)
    with taken_folder(studies, bundle, home, progress, (*bundle.allowed_pictures, *allow), limits) as taken:
        examples = _unseen(bundle, taken, diagnoses, studies)
        vectors = predictor.embed_studies(taken.store.images, examples.images)
        result = evaluate_episodes(
            predictor,
            vectors,
            examples,
            ways=ways,
            shots=shots,
            queries=queries,
            episodes=episodes,
            seed=seed,
            heads=heads,
            progress=progress,
        )
        view = None
        if deployment:
            view = evaluate_deployment(
                predictor,
                vectors,
                examples,
                offered=examples.diseases,
                cap=cap or bundle.max_shots or _CAP,
                seed=seed,
                heads=heads,
            )
    return contract(result, view)


def serving_first(bundle: Bundle) -> tuple[str, ...]:
    """Return the heads to compare: the one the bundle serves, the meta-learner, then the baselines."""
    others = [head for head in (*bundle.heads, *BASELINES) if head != bundle.serving_head]
    return tuple(dict.fromkeys([bundle.serving_head, *others]))


def _unseen(bundle: Bundle, taken: Taken, diagnoses: Path, folder: Path) -> Examples:
    import_diagnoses(taken.home, diagnoses)
    _tell_left_out(taken, diagnoses, folder)
    examples, _ = labelled_examples(
        taken.studies, taken.store.index, active_diagnoses(taken.home), groups=taken.groups
    )
    seen = set(bundle.seen_diseases)
    unseen = [code for code in examples.diseases if code not in seen]
    if not unseen:
        raise MetaDxError(
            "nothing_unseen",
            f"Bundle {bundle.id} was trained or chosen on all {len(examples.diseases)} diseases of {diagnoses}: "
            "test it on diseases that it has never seen.",
        )
    # Episodes are ordered by a hash of identifiers: under original ones they are the same in every home.
    kept = examples.with_codes(unseen)
    return with_original_identifiers(kept, taken.originals("study"), taken.originals("patient"), taken.groups)


def _tell_left_out(taken: Taken, diagnoses: Path, folder: Path) -> None:
    named = all_diagnoses(taken.home)["study"]
    elsewhere = int((~named.isin(taken.studies["study"])).sum())
    if elsewhere:
        sentence = "%d of %d rows of %s name studies that are not in %s; they are left out"
        log.warning(sentence, elsewhere, len(named), diagnoses, folder)


def predict_folder(
    bundle: Bundle,
    studies: Path,
    support: Path,
    *,
    home: Path | None = None,
    device: str = "auto",
    progress: Progress = silent,
    allow: Sequence[str] = (),
    limits: IngestOptions = DEFAULT_LIMITS,
) -> list[dict[str, Any]]:
    """Diagnose the studies of a folder from a handful of confirmed ones.

    Parameters
    ----------
    bundle : Bundle
        The bundle.
    studies : Path
        Folder with DICOM files.
    support : Path
        Table ``study_instance_uid,code``: the confirmed studies, in the folder or in the home.
    home : Path, optional
        Home in which support studies may lie; it is only read.
    device : str
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    progress : Progress
        Called while files are read.
    allow : sequence of str
        Kinds of pictures to take although they may show whose they are, besides those of the bundle's cohort.
    limits : IngestOptions
        As for :func:`taken_folder`.

    Returns
    -------
    list of dict
        One a study of the folder that is no support: the fields of ``docs/contract.md``.

    Raises
    ------
    MetaDxError
        From the table or the folder; ``unknown_support_study`` when a study is in neither place.
    """
    from meta_dx.inference.predictor import Predictor

    wanted = read_support(support)
    predictor = Predictor(bundle, device=device)
    with taken_folder(studies, bundle, None, progress, (*bundle.allowed_pictures, *allow), limits) as taken:
        no_diagnoses = pd.DataFrame({"study": [], "patient": [], "code": []}, dtype="str")
        found, _ = unlabelled_examples(taken.studies, taken.store.index, no_diagnoses, groups=taken.groups)
        original = taken.originals("study")
        patients = taken.originals("patient")
        # By original UID: surrogates order the studies anew in every temporary home.
        found = found.take(np.argsort([original[study] for study in found.study.tolist()], kind="stable"))
        here = predictor.embed_cases(
            taken.store.images, found.images, names=picture_names(taken.store, taken.originals("instance"))
        )
        uid = [original[study] for study in found.study.tolist()]
        patient = [patients.get(p, p) for p in found.patient.tolist()]
    row_of = {name: row for row, name in enumerate(uid)}
    # Sorted, so that the order of the table's rows does not reach the last digit of an answer.
    confirmed = sorted(wanted)
    missing = [name for name in confirmed if name not in row_of]
    elsewhere, extra_patients = _from_home(missing, home, bundle, predictor, support, limits)
    place = {**row_of, **{name: len(uid) + at for at, name in enumerate(missing)}}
    cases = here.joined(elsewhere).take([place[name] for name in confirmed])
    codes = sorted(set(wanted.values()))
    labels = np.array([codes.index(wanted[name]) for name in confirmed], dtype=np.int64)
    rows = [row for row, name in enumerate(uid) if name not in wanted]
    if not rows:
        raise MetaDxError(
            "nothing_to_predict", f"Every study under {studies} is in {support}: nothing is left to predict."
        )
    known = {patient[row_of[name]] for name in confirmed if name in row_of} | set(extra_patients)
    answers = predicted_studies(
        predictor,
        predictor.adapt(cases.x, labels, len(codes)),
        codes,
        cases,
        confirmed,
        labels,
        here.x[rows],
        [uid[row] for row in rows],
        [patient[row] in known for row in rows],
    )
    return [as_contract(one) for one in answers]


def read_support(path: Path) -> dict[str, str]:
    """Read a table of confirmed studies: original study UID → disease code, at least two diseases.

    Raises
    ------
    MetaDxError
        ``support_unreadable``, ``support_columns``, ``support_contradiction`` or ``too_few_diseases``.
    """
    try:
        table = pd.read_csv(
            path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True
        )
    except (OSError, ValueError) as fault:
        why = (
            str(fault) if isinstance(fault, ValueError) else (fault.strerror or type(fault).__name__).lower()
        )
        raise MetaDxError("support_unreadable", f"Cannot read the support table {path}: {why}.") from fault
    absent = [name for name in ("study_instance_uid", "code") if name not in table.columns]
    if absent:
        raise MetaDxError(
            "support_columns",
            f"The support table {path} lacks the column {absent[0]}: it needs study_instance_uid,code.",
        )
    table = table[["study_instance_uid", "code"]].apply(lambda column: column.str.strip()).drop_duplicates()
    table = table[(table["study_instance_uid"] != "") & (table["code"] != "")]
    twice = int(table["study_instance_uid"].duplicated().sum())
    if twice:
        raise MetaDxError(
            "support_contradiction",
            f"{'One study stands' if twice == 1 else f'{twice} studies stand'} in {path} with two codes: "
            "keep one each.",
        )
    if table["code"].nunique() < 2:
        raise MetaDxError(
            "too_few_diseases",
            f"{path} names {'one' if len(table) else 'no'} disease: a diagnosis needs at least 2 to choose between.",
        )
    return dict(zip(table["study_instance_uid"], table["code"], strict=True))


def _from_home(
    missing: Sequence[str],
    home: Path | None,
    bundle: Bundle,
    predictor: Predictor,
    table: Path,
    limits: IngestOptions,
) -> tuple[EmbeddedStudies, list[str]]:
    """Embed support studies that lie in the home; return them and their original patient ids."""
    if not missing:
        return predictor.embed_cases(np.zeros((0, 0, 0, 0), np.uint8), []), []
    unknown = MetaDxError(
        "unknown_support_study",
        f"{len(missing)} of the studies in {table} are neither under the folder nor in the home: "
        "add their files to the folder, or name their home with --home.",
    )
    if home is None or not (home / "home.json").exists():
        raise unknown
    opened = Home.open(home)
    vault = Vault.open(opened)
    surrogates = Surrogates(vault.key)
    catalog = Catalog(opened)
    store = prepared(opened, catalog, bundle, limits)
    rows = {study: group["row"].to_numpy(np.int64) for study, group in store.index.groupby("study")}
    studies = [surrogates.uid(name) for name in missing]
    if any(study not in rows for study in studies):
        raise unknown
    patient_of = dict(zip(store.index["study"], store.index["patient"], strict=True))
    patients = [patient_of[study] for study in studies]
    originals = vault.originals("patient", patients)
    names = picture_names(store, vault.originals("instance", store.index["instance"].tolist()))
    found = predictor.embed_cases(store.images, [rows[study] for study in studies], names=names)
    return found, [originals.get(patient, patient) for patient in patients]
