"""`batteryops compress` as a person runs it: tables, one JSON document, refusals."""

import json
import re
from pathlib import Path

import pytest
import yaml

from batteryops.cli.main import main
from batteryops.evaluation.protocols import PROTOCOLS
from batteryops.lifecycle import speed
from batteryops.models.compression_variants import VARIANTS


@pytest.fixture(autouse=True)
def _quick(quick_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = yaml.safe_load(quick_config.read_text())
    config["training"]["parameters"]["n_estimators"] = 10
    file = tmp_path / "production.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    monkeypatch.setenv("BATTERYOPS_CONFIG", str(file))
    monkeypatch.setenv("BATTERYOPS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(speed, "ROUNDS", 2)


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Run `batteryops` with these words; its exit code."""
    monkeypatch.setattr("sys.argv", ["batteryops", *map(str, words)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_three_tables_name_every_variant_and_say_what_float16_does_not_save(
    fleet_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(monkeypatch, "compress", "--source", fleet_file, "--protocol", "random")
    told = capsys.readouterr()
    assert code == 0
    for variant in VARIANTS:
        shown = re.escape(variant.name.replace("+", " + "))
        assert len(re.findall(rf"│ {shown} +│", told.out)) == 3
    assert "accuracy" in told.out
    assert "size" in told.out
    assert "speed" in told.out
    assert "store every leaf as float32" in told.err
    assert "random, folds that chose each, of 1: " in told.err
    assert "mAh" in told.out


def test_json_is_one_document_with_all_protocols(
    fleet_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compress", "--source", fleet_file, "--json"]
    code = run(monkeypatch, *words, "--protocol", "all")
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert code == 0
    assert told.err == ""
    assert [one["variant"] for one in document["variants"]] == [one.name for one in VARIANTS]
    for one in document["variants"]:
        assert list(one["protocols"]) == list(PROTOCOLS)
        assert one["bytes"]["compact"] < one["bytes"]["booster"]


def test_an_unknown_protocol_is_one_line_and_exit_1(
    fleet_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(monkeypatch, "compress", "--source", fleet_file, "--protocol", "sideways")
    told = capsys.readouterr()
    assert code == 1
    assert told.err.splitlines()[-1].startswith("error: protocol 'sideways'")
