"""A few weeks of a fleet by the command: real server, log, monitoring, controller, registry."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from batteryops.records.ledger import Ledger

WEEKS = 3


@pytest.mark.integration
def test_a_few_weeks_pass_and_are_told_as_one_document_and_a_page(tmp_path: Path) -> None:
    ran = subprocess.run(  # noqa: S603 - our own command
        [
            *(sys.executable, "-m", "batteryops", "demo", "--time-lapse", "--json"),
            *("--vehicles", "12", "--weeks", str(WEEKS), "--seed", "3", "--home", str(tmp_path)),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert set(told) == {
        *("mae_ah", "injected", "detected", "retrainings", "promotions", "rollbacks"),
        "false_alarms",
    }
    assert {"frozen", "weekly", "loop"} <= set(told["mae_ah"])
    assert all(0.0 < error < 1.0 for error in told["mae_ah"].values())
    assert all(set(one) == {"week", "cause"} for one in told["injected"])
    assert len(told["injected"]) == 1
    page = (tmp_path / "time-lapse" / "time-lapse.html").read_text("utf-8")
    assert "<svg" in page
    assert "http" not in page.replace("over HTTP", "").replace("http://www.w3.org", "")

    with Ledger(f"sqlite:///{tmp_path}/time-lapse/ledger.db") as ledger:
        assert ledger.verify().intact
