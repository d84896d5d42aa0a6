"""The suite ``diagnoses``: how a label table goes wrong, in itself and against the studies it names.

A wrong label does not fail, it is learned. Most of these faults are mended in the table in a minute, and the
import repeated; so what would give a disease the wrong studies is blocking.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import pandas as pd

from meta_dx.cohort.validation.checks import CheckSpec, CheckTable, Severity, Unit, between
from meta_dx.cohort.validation.columns import canonical_codes, date_place, days, distinct, fold, given, words
from meta_dx.cohort.validation.schemes import family_of, is_valid

#: Cells that stand for "no diagnosis", as a person reads them.
PLACEHOLDERS = frozenset(
    "- -- --- . ? ?? ??? x xx xxx n/a na nan none null nil unknown unclear tbd pending todo test".split()
)
BASES = ("follow-up", "histology", "reader", "report")
#: Years between study and diagnosis beyond which one need not belong to the other.
FAR_AWAY = 2.0
#: Share of rows that must name an ingested study, or the table is another cohort's.
JOINED_SHARE = 0.5
COLUMNS = [
    "study",
    "patient",
    "accession",
    "code",
    "scheme",
    "meaning",
    "basis",
    "diagnosed_on",
    "superseded_by",
]
#: What spreadsheets make of codes: 1E50 becomes 1E+50, MAR2 a day in March, 254837009 a decimal number.
_MONTH = r"(?:jan|feb|m[aä]r|mrz|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz])[a-zä]*\.?"
MANGLED = (
    r"(?i)^(?:\d(?:\.\d+)?e\+\d+"
    rf"|\d{{1,2}}[-. ]{{1,2}}{_MONTH}"
    rf"|{_MONTH}[-. ]\d{{2,4}}"
    r"|\d{5,}\.0+"
    r"|#(?:n/a|ref!|name\?|value!|div/0!|num!|null!|#+))$"
)
_BETWEEN = "ExpectColumnValuesToBeBetween"
_NOT_IN = "ExpectColumnValuesToNotBeInSet"


def _check(
    name: str, severity: Severity, fault: str, expectation: str, settings: Mapping[str, object]
) -> CheckSpec:
    return CheckSpec(name, "diagnoses", fault, severity, "row", expectation, settings)


CHECKS: tuple[CheckSpec, ...] = (
    _check(
        "table_has_rows",
        "blocking",
        "The diagnosis table is empty: nothing can be learned.",
        "ExpectTableRowCountToBeBetween",
        {"min_value": 1},
    ),
    _check(
        "table_joins_studies",
        "blocking",
        "Most rows name studies that were never ingested: the table belongs to another export, or its UIDs "
        "were rounded or re-written on the way.",
        _NOT_IN,
        {"column": "join_of_table", "value_set": ["study not ingested"], "mostly": JOINED_SHARE},
    ),
    _check(
        "study_ingested",
        "warning",
        "A single row names a study that was never ingested: its images are missing from the export or were "
        "refused.",
        _NOT_IN,
        {"column": "join_of_row", "value_set": ["study not ingested"]},
    ),
    _check(
        "patient_matches_images",
        "blocking",
        "The patient of a row is not the patient of the images: rows slipped or two people were mixed up.",
        _NOT_IN,
        {"column": "patient_match", "value_set": ["another patient"]},
    ),
    _check(
        "accession_matches_images",
        "blocking",
        "The accession number of a row is not that of the images: the diagnosis belongs to another study of "
        "this patient.",
        _NOT_IN,
        {"column": "accession_match", "value_set": ["another accession"]},
    ),
    _check(
        "code_not_placeholder",
        "blocking",
        "The code is a placeholder (n/a, unknown, ?): missing diagnoses would become a disease.",
        _NOT_IN,
        {"column": "code_cell", "value_set": ["placeholder"]},
    ),
    _check(
        "code_not_mangled",
        "blocking",
        "A spreadsheet turned a code into a number, a date or an error (1E50 into 1E+50, 254837009 into "
        "254837009.0).",
        "ExpectColumnValuesToNotMatchRegex",
        {"column": "code", "regex": MANGLED},
    ),
    _check(
        "code_spelled_one_way",
        "blocking",
        "One code is spelled in two ways (L40.0, l40.0, L400, an invisible blank): one disease would become "
        "two.",
        _BETWEEN,
        between("spellings_of_code", 1, 1),
    ),
    _check(
        "code_of_one_scheme",
        "blocking",
        "One code stands under two coding schemes: two diseases that happen to share a code would become "
        "one.",
        _BETWEEN,
        between("schemes_of_code", 1, 1),
    ),
    _check(
        "code_of_one_meaning",
        "blocking",
        "One code has two meanings: a code was given twice, or somebody typed over one of the two columns.",
        _BETWEEN,
        between("meanings_of_code", 1, 1),
    ),
    _check(
        "meaning_of_one_code",
        "blocking",
        "One meaning has two codes: one disease would stand on both sides of a split.",
        _BETWEEN,
        between("codes_of_meaning", 1, 1),
    ),
    _check(
        "code_valid_in_scheme",
        "warning",
        "A code cannot be one of its coding scheme (ICD-10, ICD-O, RadLex: its form; SNOMED CT: also its check "
        "digit): mistyped, cut, or rounded by a spreadsheet.",
        _NOT_IN,
        {"column": "code_form", "value_set": ["impossible"]},
    ),
    _check(
        "meaning_given",
        "warning",
        "A code has no meaning beside it, so nobody can see whether it is the right one.",
        _NOT_IN,
        {"column": "meaning_cell", "value_set": ["empty"]},
    ),
    _check(
        "study_of_one_diagnosis",
        "warning",
        "A study has two valid diagnoses: they contradict each other, or both are true; it is left out of "
        "training.",
        _BETWEEN,
        between("codes_of_study", 1, 1),
    ),
    _check(
        "row_given_once",
        "warning",
        "The same diagnosis of the same study stands in the table twice with different details: two extracts "
        "were pasted together.",
        _BETWEEN,
        between("uses_of_row", 1, 1),
    ),
    _check(
        "basis_known",
        "warning",
        f"The basis of a diagnosis is none of {', '.join(BASES)}, so its strength cannot be told.",
        "ExpectColumnValuesToBeInSet",
        {"column": "basis_cell", "value_set": list(BASES)},
    ),
    _check(
        "diagnosis_date_plausible",
        "warning",
        "The date of a diagnosis lies before 1970 or in the future: a placeholder or a slipped digit.",
        _NOT_IN,
        {"column": "diagnosed_on_place", "value_set": ["too early", "in the future"]},
    ),
    _check(
        "diagnosis_close_to_study",
        "warning",
        f"A diagnosis was made more than {FAR_AWAY:g} years before or after the study: the images may not "
        "show the disease, or not any more.",
        _BETWEEN,
        between("years_after_study", -FAR_AWAY, FAR_AWAY),
    ),
    _check(
        "successor_in_table",
        "warning",
        "A diagnosis was superseded by one that the table does not hold for this study: the study has no "
        "valid diagnosis any more.",
        _NOT_IN,
        {"column": "successor", "value_set": ["not in the table"]},
    ),
)


def diagnosis_tables(
    diagnoses: pd.DataFrame, studies: pd.DataFrame, *, today: date | None = None
) -> dict[Unit, CheckTable]:
    """Add the helper columns of the suite to the label table.

    Parameters
    ----------
    diagnoses : DataFrame
        The label table, surrogate identities.
    studies : DataFrame
        Studies of all batches: what the rows must agree with.
    today : date, optional
        Dates after it lie in the future; default is the day of the run.

    Returns
    -------
    dict of str to CheckTable
        The one table of the suite; ``batch`` is the batch of the study, where it was ingested.
    """
    table = diagnoses.reset_index(drop=True).reindex(columns=COLUMNS)
    known = given(table["study"]).isin(studies["study"])
    canonical = canonical_codes(table["code"]).where(_code_cell(table["code"]) == "filled", None)
    valid = given(table["superseded_by"]).isna()
    rows = pd.DataFrame({"code": given(table["code"]), "canonical": canonical, "valid": valid})
    rows = rows.assign(
        study=table["study"],
        batch=table["study"].map(studies.drop_duplicates("study").set_index("study")["batch"]),
        code_cell=_code_cell(table["code"]),
        meaning=fold(table["meaning"]),
        meaning_cell=words(given(table["meaning"]).isna(), "empty", "filled", table.index).where(
            canonical.notna(), None
        ),
        scheme=_scheme(table["scheme"]),
        code_form=_code_form(table),
        basis_cell=fold(table["basis"]),
        diagnosed_on_place=date_place(table["diagnosed_on"], today or date.today()),
        years_after_study=_years_after_study(table, studies, today or date.today()),
        **_joins(known),
        **_matches(table, studies, known),
    )
    unit = CheckTable("row", rows.assign(**_counts(rows, table)), "study")
    return {"row": unit}


def _code_cell(codes: pd.Series) -> pd.Series:
    folded = fold(codes)
    return words(folded.isin(PLACEHOLDERS), "placeholder", "filled", codes.index).where(folded.notna(), None)


def _scheme(schemes: pd.Series) -> pd.Series:
    """Fold spellings of one scheme: ``ICD-10`` and ``icd10`` are the same."""
    return fold(schemes).map(lambda name: "".join(filter(str.isalnum, name)), na_action="ignore")


def _code_form(table: pd.DataFrame) -> pd.Series:
    """Say whether each code can be one of its scheme; what a spreadsheet mangled has a check of its own."""
    text = given(table["code"])
    families = _scheme(table["scheme"]).map(family_of, na_action="ignore")
    sound = (_code_cell(table["code"]) == "filled") & ~text.astype(str).str.match(MANGLED)
    judged = sound & families.notna()
    state = [
        ("possible" if is_valid(str(code), family) else "impossible") if known else None
        for code, family, known in zip(text, families, judged, strict=True)
    ]
    return pd.Series(state, index=table.index, dtype=object)


def _joins(known: pd.Series) -> dict[str, pd.Series]:
    """Tell a table of another export from single rows without images: each is the fault of one check only."""
    state = words(~known, "study not ingested", "joined", known.index)
    whole = known.mean() >= JOINED_SHARE if len(known) else True
    return {
        "join_of_table": state,
        "join_of_row": state if whole else pd.Series(None, index=known.index, dtype=object),
    }


def _matches(table: pd.DataFrame, studies: pd.DataFrame, known: pd.Series) -> dict[str, pd.Series]:
    """Compare patient and accession with those of the images, where both sides have one."""

    def among(column: str) -> pd.Series:
        pairs = studies[["study", column]].dropna().drop_duplicates()
        agreed = (table["study"] + " " + table[column]).isin(pairs["study"] + " " + pairs[column])
        comparable = known & given(table[column]).notna() & table["study"].isin(pairs["study"])
        return words(~agreed, f"another {column}", "the same", table.index).where(comparable, None)

    patient, accession = among("patient"), among("accession")
    # Where the patient is another one, the accession number cannot be right: that is one fault, not two.
    return {"patient_match": patient, "accession_match": accession.where(patient != "another patient", None)}


def _years_after_study(table: pd.DataFrame, studies: pd.DataFrame, today: date) -> pd.Series:
    """Years from study to diagnosis; both dates are shifted alike where the patient is the same."""
    seen = studies.drop_duplicates("study").set_index("study")
    same = table["patient"] == table["study"].map(seen["patient"])
    plausible = date_place(table["diagnosed_on"], today) == "plausible"
    passed = days(table["diagnosed_on"]) - days(table["study"].map(seen["study_date"]))
    return (passed.dt.days / 365.25).where(same & plausible)


def _counts(rows: pd.DataFrame, table: pd.DataFrame) -> dict[str, pd.Series]:
    now = rows.assign(statement=rows["study"] + " " + rows["canonical"])[rows["valid"]]
    coded = rows[rows["canonical"].notna()]
    uses = now.groupby("statement").size()
    # One pass over both columns, so that a code and its successor fold alike.
    folded = canonical_codes(pd.concat([table["code"], table["superseded_by"]], ignore_index=True))
    own = rows["study"] + " " + folded[: len(rows)]
    successor = rows["study"] + " " + folded[len(rows) :].set_axis(rows.index)
    held = successor.isin(own.dropna()) & (successor != own)
    return {
        "spellings_of_code": distinct(coded, "canonical", "code", rows["canonical"]),
        "schemes_of_code": distinct(rows, "canonical", "scheme", rows["canonical"]),
        "meanings_of_code": distinct(rows, "canonical", "meaning", rows["canonical"]),
        "codes_of_meaning": distinct(rows, "meaning", "canonical", rows["meaning"]),
        "codes_of_study": distinct(now, "study", "canonical", rows["study"].where(rows["valid"], None)),
        "uses_of_row": now["statement"].map(uses).reindex(rows.index).astype(float),
        "successor": words(~held, "not in the table", "in the table", rows.index).where(~rows["valid"], None),
    }
