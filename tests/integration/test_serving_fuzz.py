"""Whatever is sent to what the OpenAPI page describes, the server answers as the page says."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batteryops.records.api_keys import ApiKeys

pytestmark = pytest.mark.integration

EXAMPLES = 25  # of each operation, besides those that cover each rule of its schema
NOT_ASKED = (
    "positive_data_acceptance",  # an asset without a profile is refused, whatever its name
    "unsupported_method",  # POST to an unknown /v2 path is 404 with the protocol's own document
)


def test_no_request_whatever_fails_or_is_answered_otherwise_than_documented(
    stage: Any,  # noqa: ANN401  # conftest's
    tmp_path: Path,
) -> None:
    if importlib.util.find_spec("schemathesis") is None:
        if os.environ.get("CI"):
            pytest.fail("schemathesis is not installed")
        pytest.skip("schemathesis is not installed")
    with ApiKeys(stage.settings.predictions_url) as keys:
        _, secret = keys.create("fuzz", ["predict", "label", "admin"])
    served = stage.serve("--model", stage.package)
    run = subprocess.run(  # noqa: S603  # a tool of development
        [
            *(sys.executable, "-W", "ignore", "-m", "schemathesis.cli", "run"),
            f"{served.url}/openapi.json",
            *("--header", f"Authorization: Bearer {secret}"),
            *("--phases", "examples,coverage,fuzzing"),
            *("--max-examples", str(EXAMPLES), "--max-time", "20", "--generation-deterministic"),
            *("--checks", "all", "--exclude-checks", ",".join(NOT_ASKED)),
            *(
                "--continue-on-failure",
                "--suppress-health-check",
                "all",
                "--warnings",
                "off",
                "--no-color",
            ),
        ],
        cwd=tmp_path,
        env=os.environ
        | {
            "SCHEMATHESIS_HOOKS": "fuzz_checks",
            "PYTHONPATH": os.pathsep.join(
                [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
            ),
            "FUZZ_SECRET": secret,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    log = served.log.read_text("utf-8")
    assert '"trace"' not in log
    assert secret not in log
    served.stop()
