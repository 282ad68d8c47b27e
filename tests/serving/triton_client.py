"""Speaks to a server at an address through NVIDIA's public client; `test_v2.py` runs it.

It runs in an environment of its own, which holds `tritonclient[http]` and not this package.
"""

import json
import sys

import numpy as np

MODEL = "ev-soh-predictor"
ROW = (3.53, -1.82, 32.6, 39.0, 3690.0, 14.7, 2713.0)


def main(address: str) -> None:
    """Ask for everything that the client can ask for, and print what was answered."""
    # only there: whoever collects tests here can import this module
    import tritonclient.http as triton  # type: ignore[import-not-found]  # noqa: PLC0415
    from tritonclient.utils import InferenceServerException  # type: ignore[import-not-found]  # noqa: PLC0415

    client = triton.InferenceServerClient(address)
    vehicles = np.array(["EV-0001", "Zeppelin"], dtype=object)
    rows = np.array([ROW, ROW])
    answers = []
    for binary in (True, False):
        for kind, numbers in (("FP32", np.float32), ("FP64", np.float64)):
            names = triton.InferInput("vehicle_id", [2], "BYTES")
            names.set_data_from_numpy(vehicles, binary_data=binary)
            features = triton.InferInput("features", [2, 7], kind)
            features.set_data_from_numpy(rows.astype(numbers), binary_data=binary)
            for outputs in (
                None,
                [
                    triton.InferRequestedOutput("soh", binary_data=binary),
                    triton.InferRequestedOutput("status", binary_data=binary),
                ],
            ):
                given = client.infer(MODEL, [names, features], outputs=outputs)
                answers.append(
                    {
                        "soh": given.as_numpy("soh").astype(float).tolist(),
                        "status": [
                            text.decode() if isinstance(text, bytes) else text
                            for text in given.as_numpy("status").tolist()
                        ],
                    }
                )
    try:
        client.infer("iris", [names, features])
    except InferenceServerException as error:
        refused = str(error)
    print(  # noqa: T201 - for the test
        json.dumps(
            {
                "live": client.is_server_live(),
                "ready": client.is_server_ready() and client.is_model_ready(MODEL),
                "versions": client.get_model_metadata(MODEL)["versions"],
                "answers": answers,
                "error": refused,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
