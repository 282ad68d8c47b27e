"""A busy server takes up what was learned from a batch of labels, without being started again."""

import time
from pathlib import Path
from typing import Any

import pytest

from batteryops.features.views import matrix
from batteryops.lifecycle.loading import load_model
from batteryops.lifecycle.online_learning import online_learning_update
from batteryops.lifecycle.progress import Silent
from batteryops.lifecycle.promotion import promote
from batteryops.records.api_keys import ApiKeys
from lifecycle.updating import VIEW, new_rows

pytestmark = pytest.mark.integration

PATIENCE_S = 60.0


def test_an_update_that_is_accepted_answers_without_a_failed_request(
    stage: Any,  # noqa: ANN401  # conftest's
    tmp_path: Path,
) -> None:
    promote(1, stage.settings)
    with ApiKeys(stage.settings.predictions_url) as keys:
        _, secret = keys.create("clients", ["predict"])
    headers = {"Authorization": f"Bearer {secret}"}
    served = stage.serve()
    busy = stage.load(served, clients=2, headers=headers)
    busy.until(answers=20)

    new_rows().write_parquet(tmp_path / "batch.parquet")
    learned = online_learning_update(
        stage.settings, Silent(), table=tmp_path / "batch.parquet", promote=True
    )
    assert learned.updated.accepted, learned.updated.reason
    began = time.monotonic()
    while busy.answers[-1][1] != "2":
        assert time.monotonic() < began + PATIENCE_S
        time.sleep(0.01)
    busy.stop()
    assert (busy.refused, busy.broken) == ([], [])

    row = new_rows().row(5, named=True)
    question = {"vehicle_id": row["asset_id"], **{name: row[name] for name in VIEW.names}}
    status, answer = served.ask("POST", "/predict", question, headers)
    assert status == 200
    package = load_model("2", stage.settings).package
    expected = package.predict_batch(matrix(VIEW, new_rows()[5:6]))[0]
    assert answer["model_version"] == "2"
    assert answer["capacity_ah"] == pytest.approx(expected, abs=1e-4)
