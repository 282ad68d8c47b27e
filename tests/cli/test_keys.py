"""`batteryops keys`: a secret is printed once and stored nowhere, what was done is on record."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from batteryops.cli.main import main
from batteryops.errors import RecordsError
from batteryops.records.api_keys import ApiKeys
from batteryops.records.ledger import Ledger
from batteryops.settings import load_settings

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `batteryops keys` with these words in a fresh home."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["batteryops", "keys", *words, "--home", str(tmp_path)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_a_key_is_created_listed_revoked_and_all_but_its_secret_is_on_the_ledger(
    run: Run, tmp_path: Path
) -> None:
    code, out, err = run("create", "fleet-app", "--scope", "predict", "--scope", "label")
    assert code == 0
    secret = out.splitlines()[-1]
    assert "it cannot be shown again" in err
    settings = load_settings(home=tmp_path)
    with ApiKeys(settings.predictions_url) as keys:
        found = keys.verify(secret)
    assert found is not None
    assert found.scopes == ("predict", "label")

    code, out, _ = run("list")
    assert code == 0
    assert all(told in out for told in ("fleet-app", found.key_id, "predict, label", "valid"))
    assert secret not in out

    assert run("revoke", "fleet-app")[0] == 0
    assert "revoked" in run("list")[1]
    with Ledger(settings.ledger_url) as ledger:
        entries = ledger.entries()
    assert [(entry.event, entry.subject) for entry in entries] == [
        ("key_created", "fleet-app"),
        ("key_revoked", "fleet-app"),
    ]
    assert entries[0].details == {
        "key_id": found.key_id,
        "scopes": ["predict", "label"],
        "rate_per_s": None,
        "expires_at": None,
    }
    assert secret.rpartition("_")[2] not in str(entries)


def test_json_says_the_same_and_the_secret_once(run: Run) -> None:
    code, out, _ = run(
        *("create", "a", "--scope", "admin", "--rate", "2.5", "--expires-days", "90", "--json")
    )
    assert code == 0
    made = json.loads(out)
    assert (made["scopes"], made["rate_per_s"], made["revoked_at"]) == (["admin"], 2.5, None)
    secret = made.pop("secret")
    assert secret.startswith(f"bo_{made['key_id']}_")
    [listed] = json.loads(run("list", "--json")[1])
    assert listed == {**made, "state": "valid"}
    revoked = json.loads(run("revoke", made["key_id"], "--json")[1])
    assert revoked == {**made, "revoked_at": revoked["revoked_at"]}
    assert json.loads(run("list", "--json")[1])[0]["state"] == "revoked"


def test_what_makes_no_sense_is_refused_in_one_line(run: Run) -> None:
    code, out, err = run("create", "a", "--scope", "root")
    assert (code, out) == (1, "")
    assert err.startswith("error: scopes of the key: 'root'; expected some of predict")
    assert run("revoke", "nobody")[0] == 1
    assert run("create", "a")[0] == 2  # wrong use: no scope


def test_a_key_that_cannot_be_put_on_record_is_taken_back(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_given: object) -> None:
        raise RecordsError("the ledger is not usable")

    monkeypatch.setattr(Ledger, "append", refuses)
    code, out, err = run("create", "a", "--scope", "predict")
    assert (code, out) == (1, "")
    assert "the ledger is not usable" in err
    with ApiKeys(load_settings(home=tmp_path).predictions_url) as keys:
        assert keys.snapshot() == {}
