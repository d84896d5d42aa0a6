"""A wrong key or value in cohort.toml is refused with the key, the value and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from meta_dx.errors import MetaDxError
from meta_dx.settings import Settings, load_settings

MINIMAL = '[cohort]\nname = "skin"\nsources = ["studies"]\n'


def read(folder: Path, text: str) -> Settings:
    path = folder / "cohort.toml"
    path.write_text(text)
    return load_settings(path)


def refusal(folder: Path, text: str) -> MetaDxError:
    with pytest.raises(MetaDxError) as caught:
        read(folder, text)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_minimal_file_is_completed_by_defaults_and_absolute_paths(tmp_path: Path) -> None:
    settings = read(tmp_path, MINIMAL)
    assert settings.sources == [tmp_path / "studies"]
    assert settings.cohort.seed == 0
    assert settings.serve.offer == "rare"


def test_a_misspelt_key_is_named_with_its_value_and_the_nearest_allowed_one(tmp_path: Path) -> None:
    fault = refusal(tmp_path, MINIMAL + "[serve]\nmax_shoots = 7\n")
    assert fault.code == "unknown_key"
    for part in ("max_shoots", "7", "max_shots", "[serve]", "cohort.toml"):
        assert part in str(fault)


def test_an_unknown_section_is_refused(tmp_path: Path) -> None:
    fault = refusal(tmp_path, MINIMAL + "[imagse]\nsize = 64\n")
    assert fault.code == "unknown_key"
    assert "Did you mean 'images'?" in str(fault)


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ('[serve]\noffer = "some"', ("offer", "'some'", "'rare'", "'all'", "'list'")),
        ("[serve]\nmax_shots = 0", ("max_shots", "0", "at least 1")),
        ("[serve]\nmax_shots = 2.5", ("max_shots", "2.5", "a whole number")),
        ("[serve]\nmax_shots = true", ("max_shots", "True", "a whole number")),
        ('[privacy]\npictures_in_lineage = "no"', ("pictures_in_lineage", "'no'", "true or false")),
        ('[split]\nrare = "MEL"', ("rare", "'MEL'", "a list")),
        ("[evaluation]\nshots = [0, 5]", ("shots", "[0, 5]", "1")),
        ("[inbox]\nholdout = -1", ("holdout", "-1", "0")),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(
    tmp_path: Path, line: str, parts: tuple[str, ...]
) -> None:
    fault = refusal(tmp_path, MINIMAL + line + "\n")
    assert fault.code == "bad_value"
    for part in parts:
        assert part in str(fault)


def test_a_section_that_is_no_section_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, "images = 3\n" + MINIMAL).code == "bad_value"


def test_a_missing_required_key_is_named(tmp_path: Path) -> None:
    fault = refusal(tmp_path, '[cohort]\nname = "skin"\n')
    assert fault.code == "missing_key"
    assert "sources" in str(fault)


def test_a_variable_that_is_not_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SKIN_DATA", raising=False)
    text = '[cohort]\nname = "skin"\nsources = ["$SKIN_DATA/studies"]\n'
    assert "SKIN_DATA" in str(refusal(tmp_path, text))
    monkeypatch.setenv("SKIN_DATA", "/data/skin")
    assert read(tmp_path, text).sources == [Path("/data/skin/studies")]


def test_broken_toml_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    assert refusal(tmp_path, "[cohort\n").code == "bad_toml"
    with pytest.raises(MetaDxError) as caught:
        load_settings(tmp_path / "nowhere.toml")
    assert caught.value.code == "no_settings"


def test_every_shipped_cohort_file_reads_without_complaint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("META_DX_DATA", "/data")
    examples = sorted((Path(__file__).parent.parent / "examples").glob("*.toml"))
    assert {path.stem for path in examples} >= {"demo", "derm", "cxr", "medpix"}
    names = [load_settings(path).cohort.name for path in examples]
    assert names == [path.stem for path in examples]


def test_what_init_writes_is_valid_and_mentions_every_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from meta_dx.cli.app import run

    target = tmp_path / "new.toml"
    assert run(["init", str(target)]) == 0
    load_settings(target)
    text = target.read_text()
    for section in Settings.__dataclass_fields__:
        assert f"[{section}]" in text


def test_options_of_a_learner_stand_in_a_section_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "cohort.toml"
    path.write_text(
        '[cohort]\nname = "a"\nsources = ["."]\n'
        '[learner]\nname = "prototypical"\n[learner.prototypical]\ndistance = "cosine"\n'
    )
    assert load_settings(path).learner.prototypical.distance == "cosine"
    path.write_text('[cohort]\nname = "a"\nsources = ["."]\n[learner.prototypical]\ndistances = "cosine"\n')
    with pytest.raises(MetaDxError, match=r"\[learner.prototypical\]: unknown key 'distances' .* 'distance'"):
        load_settings(path)
    path.write_text('[cohort]\nname = "a"\nsources = ["."]\n[learner]\nprototypical = 3\n')
    with pytest.raises(MetaDxError, match=r"allowed is a section, written \[learner.prototypical\]"):
        load_settings(path)


@pytest.mark.parametrize(
    ("section", "line", "told"),
    [
        ("ingest", "workers = -1", "workers is -1: allowed is a whole number from 0"),
        ("ingest", "max_file_bytes = -1", "max_file_bytes is -1"),
        ("images", "window_width = 0.0", "window_width is 0.0: allowed is above 0"),
    ],
)
def test_values_that_cannot_work_are_refused(tmp_path: Path, section: str, line: str, told: str) -> None:
    path = tmp_path / "cohort.toml"
    path.write_text(f'[cohort]\nname = "a"\nsources = ["."]\n[{section}]\n{line}\n')
    with pytest.raises(MetaDxError, match=told):
        load_settings(path)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            '[learner.anil]\nbatch_norm = "per_step"',
            ("[learner.anil] batch_norm", "'per_step'", "support", "stored"),
        ),
        (
            "[learner.maml]\nsteps = 0\nlearned_rates = true",
            ("[learner.maml]", "learned_rates", "steps is 0"),
        ),
        ("[learner.reptile]\ntrain_shots = 1", ("[learner.reptile]", "train_shots is 1", "from 2")),
        (
            '[learner]\nname = "reptile"\n[training]\nepisodes = 0',
            ("[training] episodes is 0", "'reptile'", "cohort.toml"),
        ),
        (
            '[learner]\ncompare = ["fine_tuning", "leo"]\n[training]\nhead_steps = 0',
            ("[training] head_steps is 0", "'leo'"),
        ),
    ],
)
def test_options_that_cannot_go_together_are_refused_before_anything_is_trained(
    tmp_path: Path, text: str, parts: tuple[str, ...]
) -> None:
    fault = refusal(tmp_path, MINIMAL + text + "\n")
    assert fault.code == "bad_value"
    for part in parts:
        assert part in str(fault)


def test_options_that_go_together_are_not_refused(tmp_path: Path) -> None:
    text = (
        '[learner]\nname = "fine_tuning"\n[learner.maml]\nbatch_norm = "per_step"\n'
        '[learner.anil]\nbatch_norm = "stored"\n[training]\nepisodes = 0\nhead_steps = 0\n'
    )
    read_settings = read(tmp_path, MINIMAL + text)
    assert read_settings.learner.anil.batch_norm == "stored"
    assert read_settings.learner.maml.batch_norm == "per_step"


def test_weights_to_start_from_lie_beside_the_cohort_file(tmp_path: Path) -> None:
    path = tmp_path / "cohort.toml"
    path.write_text('[cohort]\nname = "a"\nsources = ["."]\n[backbone]\nweights = "w.pt"\n')
    assert load_settings(path).backbone.weights == str(tmp_path / "w.pt")


def test_an_archive_for_reports_is_an_address_without_filters(tmp_path: Path) -> None:
    for address in ("dicomweb+https://pacs.example.org/web", "dimse://ARCHIVE@10.0.0.5:104"):
        assert read(tmp_path, f'{MINIMAL}[review]\narchive = "{address}"\n').review.archive == address
    for address in (
        "received:",
        "/a/folder",
        "dicomweb+https://pacs.example.org/web?modality=CT",
        "dicomweb+http://pacs.example.org/web",
        "dicomweb+https://user:secret@pacs.example.org/web",
        "dimse://10.0.0.5:104",
    ):
        fault = refusal(tmp_path, f'{MINIMAL}[review]\narchive = "{address}"\n')
        assert "[review] archive" in str(fault)
        assert "secret@" not in str(fault)


def test_files_of_openid_lie_beside_the_cohort_file(tmp_path: Path) -> None:
    path = tmp_path / "cohort.toml"
    path.write_text(
        '[cohort]\nname = "a"\nsources = ["."]\n[review.openid]\nissuer = "https://id.example.org"\nclient_id = "x"\n'
        'secret_file = "secret"\nca_file = "ca.pem"\nrole_claim = "groups"\n[review.openid.roles]\nlead = ["dx"]\n'
    )
    openid = load_settings(path).review.openid
    assert (openid.secret_file, openid.ca_file) == (str(tmp_path / "secret"), str(tmp_path / "ca.pem"))
    assert openid.roles.lead == ("dx",)
