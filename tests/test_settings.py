"""File < environment < flags; and what a wrong setting is told."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from pydantic import ValidationError

from batteryops.errors import SettingsError, UnknownAssetError
from batteryops.evaluation.ab_rules import ABRules
from batteryops.models.strategies import STRATEGIES, Plan
from batteryops.settings import TrialSettings, find_config, load_settings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BATTERYOPS_HOME", "BATTERYOPS_DATA", "BATTERYOPS_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def test_flags_outrank_environment_which_outranks_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().home == Path(".batteryops")
    monkeypatch.setenv("BATTERYOPS_HOME", "from-environment")
    assert load_settings().home == Path("from-environment")
    assert load_settings(home=Path("from-flag")).home == Path("from-flag")


def test_a_nested_key_is_set_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATTERYOPS_SERVING__PORT", "9001")
    settings = load_settings()
    assert settings.serving.port == 9001
    assert settings.serving.host == "127.0.0.1"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings().home = Path("elsewhere")  # type: ignore[misc]  # what must not work


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("BATTERYOPS_SERVING__PORT", "abc", r"serving\.port: .*valid integer.*'abc'"),
        ("BATTERYOPS_SERVING__PORT", "70000", r"serving\.port: .*65535"),
        ("BATTERYOPS_EVALUATION__TEST_SHARE", "1.5", r"evaluation\.test_share: .*less than 1"),
        ("BATTERYOPS_TRAINING__PARAMETERS__N_JOBS", "two", r"n_jobs is 'two'.*PARAMETERS__N_JOBS"),
        ("BATTERYOPS_QUALITY__TYPO", "1", r"BATTERYOPS_QUALITY__TYPO is no setting"),
        ("BATTERYOPS_HMOE", "x", r"BATTERYOPS_HMOE is no setting; did you mean BATTERYOPS_HOME\?"),
        ("BATTERYOPS_SERVING_PORT", "1", r"did you mean BATTERYOPS_SERVING__PORT\?"),
        ("BATTERYOPS_HOME__X", "1", r"BATTERYOPS_HOME__X is no setting"),
        ("BATTERYOPS_SERVING", '{"port": ', r"variable BATTERYOPS_SERVING: no valid JSON"),
        ("BATTERYOPS_TRAINING__GATES", "[{", r"variable BATTERYOPS_TRAINING__GATES: no valid JSON"),
        ("BATTERYOPS_RETRAINING__WEEKDAY", "7", r"retraining\.weekday: .*less than or equal to 6"),
        ("BATTERYOPS_RETRAINING__MIN_LABEL_VEHICLES", "1", r"min_label_vehicles: .*equal to 2"),
        ("BATTERYOPS_RETRAINING__LEASE_S", "nan", r"retraining\.lease_s: .*less than or equal"),
        ("BATTERYOPS_RETRAINING__STRATEGIES", '["boost"]', r"strategies\.0: .*'warm_start'"),
        ("BATTERYOPS_RETRAINING__STRATEGIES", "[]", r"strategies: .*at least 1 item"),
        ("BATTERYOPS_RETRAINING__SERVERS", '["a:1"]', r"servers\.0: 'a:1' is no server's address"),
        (
            "BATTERYOPS_RETRAINING__TRIAL__MAX_DAYS",
            "5",
            r"max_days 5\.0: none may be above",
        ),
        ("BATTERYOPS_RETRAINING__TRIAL__LEVELS", "1", r"trial\.levels: .*not permitted"),
        ("BATTERYOPS_SERVING", "[1]", r"serving: .*valid dictionary.*BATTERYOPS_SERVING"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_given(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=told):
        load_settings()


def test_a_missing_file_is_named() -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.yaml does not exist"):
        load_settings(Path("nowhere.yaml"))


def test_a_profile_that_a_pattern_names_must_be_declared(tmp_path: Path) -> None:
    text = find_config().read_text().replace('"EV-*": simulated_nmc_18650', '"EV-*": no_such')
    config = tmp_path / "production.yaml"
    config.write_text(text)
    with pytest.raises(SettingsError, match="names profile 'no_such'"):
        load_settings(config)


def test_a_range_must_not_run_backwards(tmp_path: Path) -> None:
    config = tmp_path / "production.yaml"
    text = find_config().read_text()
    config.write_text(text.replace("[-10.0, 60.0]", "[60.0, -10.0]", 1))
    with pytest.raises(SettingsError, match=r"60\.0 is not at most -10\.0"):
        load_settings(config)


def test_the_first_pattern_that_matches_gives_the_profile() -> None:
    settings = load_settings()
    assert settings.profile_of("B0018").nominal_capacity_ah == 2.0
    assert settings.profile_of("EV-LFP-0001").chemistry == "LFP"
    assert settings.profile_of("EV-0001").chemistry == "NMC"
    assert settings.profile_of("Vehicle 5").level == "pack"


def test_an_asset_that_no_pattern_matches_is_refused() -> None:
    with pytest.raises(UnknownAssetError, match="asset 'X1' has no profile"):
        load_settings().profile_of("X1")
    with pytest.raises(SettingsError, match="profile 'x'"):
        load_settings().profile("x")


def test_every_store_defaults_to_a_place_under_home() -> None:
    settings = load_settings(home=Path("/srv/state"))
    assert settings.predictions_url == "sqlite:////srv/state/predictions.db"
    assert settings.ledger_url == "sqlite:////srv/state/ledger.db"
    assert settings.tracking_uri == "sqlite:////srv/state/mlflow.db"
    assert settings.artifact_root == "/srv/state/artifacts"
    assert settings.lake == Path("/srv/state/lake")


def test_the_configuration_is_found_from_another_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config().is_file()
    monkeypatch.setenv("BATTERYOPS_CONFIG", "absent.yaml")
    with pytest.raises(SettingsError, match=r"looked for absent\.yaml"):
        find_config()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"home: [1,\n b: }", "cannot be read as YAML"),
        (b"- home\n- data\n", "holds a list; expected settings by name"),
        (b"\x89PNG\r\n\x1a\n\xff", "cannot be read as YAML"),
        (b"1: 2\n", "1 is no setting's name"),
        (b"home: a\ndata: b\nhome: c\n", "home is given 2 times"),
        (b"serving:\n  port: 1\n  port: 2\n", "port is given 2 times in the part from line 2"),
        (b"a: " + b"[" * 5000, "cannot be read as YAML"),
        (b"", "environment is missing; home is missing"),
    ],
)
def test_a_file_that_holds_no_settings_is_told(tmp_path: Path, content: bytes, told: str) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_bytes(content)
    with pytest.raises(SettingsError, match=rf"wrong\.yaml.*{told}"):
        load_settings(config)


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATTERYOPS_DATA", "")
    assert load_settings().data is None


def gate(limit: str) -> dict[str, str]:
    return {"name": "g", "protocol": "random", "metric": "mae_ah", "limit": limit}


@pytest.mark.parametrize("limit", ["<1", "<= -1", "> .5", ">= 1e-3", "< 2.", "< ridge", "< k_nn"])
def test_a_limit_is_an_operator_and_a_number_or_a_baseline(
    monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setenv("BATTERYOPS_TRAINING__GATES", json.dumps([gate(limit)]))
    assert load_settings().training.gates[0].limit == limit


@pytest.mark.parametrize(
    "limit", ["", "1", "== 1", "< 1 2", "< 0x10", "< 1_000", "< ridge_", "< nan", "< inf", "< 1\n"]
)
def test_any_other_limit_is_refused(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setenv("BATTERYOPS_TRAINING__GATES", json.dumps([gate(limit)]))
    with pytest.raises(SettingsError, match=r"gates\.0\.limit: expected <, <=, > or >= and"):
        load_settings()


def test_two_gates_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATTERYOPS_TRAINING__GATES", json.dumps([gate("< 1"), gate("< 2")]))
    with pytest.raises(SettingsError, match="2 gates are named 'g'"):
        load_settings()


def test_a_default_profile_must_be_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATTERYOPS_EVALUATION__DEFAULT_PROFILE", "none_such")
    with pytest.raises(SettingsError, match="default_profile 'none_such' is not among"):
        load_settings()


def test_a_server_is_an_address_without_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    urls = ["http://a:8000/", "https://b.example/soh"]
    monkeypatch.setenv("BATTERYOPS_RETRAINING__SERVERS", json.dumps(urls))
    assert load_settings().retraining.servers == ("http://a:8000", "https://b.example/soh")
    monkeypatch.setenv("BATTERYOPS_RETRAINING__SERVERS", '["http://user:secret@a:8000"]')
    with pytest.raises(SettingsError, match="without user and password"):
        load_settings()


def test_a_trial_is_configured_by_the_very_rules_that_judge_it() -> None:
    assert TrialSettings().model_dump() == asdict(ABRules())
    settings = load_settings()
    configured = ABRules(**settings.retraining.trial.model_dump())
    # what is configured and how vehicles are really split must agree, or no split looks right
    assert configured.challenger_share == settings.serving.routing.share
    assert asdict(configured) == asdict(ABRules()) | {
        "challenger_share": settings.serving.routing.share
    }


@pytest.mark.parametrize("value", [-1, 0, 0.5, 1, 1.5, 2, 100])
@pytest.mark.parametrize("name", sorted(TrialSettings.model_fields))
def test_a_trial_refuses_what_its_rules_refuse(name: str, value: float) -> None:
    whole = TrialSettings.model_fields[name].annotation is int
    if whole and value != int(value):
        return

    def refused(make: type, error: type[Exception]) -> bool:
        try:
            make(**{name: value})
        except error:
            return True
        return False

    assert refused(TrialSettings, ValidationError) == refused(ABRules, SettingsError)


def test_strategies_are_configured_as_they_are_compared() -> None:
    retraining = load_settings().retraining
    plan = Plan(
        strategies=retraining.strategies,
        held_out=retraining.held_out_share,
        replay=retraining.replay,
        replay_rows=retraining.replay_rows,
        max_trees=retraining.max_trees,
        budget_s=retraining.budget_s,
    )
    assert sorted(plan.strategies) == sorted(STRATEGIES)
    assert plan == Plan()


def test_the_weekly_run_is_on_sunday_at_two_as_the_source_system_has_it() -> None:
    retraining = load_settings().retraining
    assert (retraining.weekday, retraining.hour_utc) == (6, 2)
    assert retraining.new_trips == 1000
