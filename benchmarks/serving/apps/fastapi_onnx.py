"""FastAPI and ONNX Runtime as people write it: a pydantic body, one session, a dict out."""

# ruff: noqa: N815 - fields have the names that the feature view gives them

import os

import numpy as np
import onnxruntime as ort
from fastapi import FastAPI
from pydantic import BaseModel

options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.inter_op_num_threads = 1
session = ort.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
app = FastAPI()


class Features(BaseModel):
    """The seven features of a discharge."""

    vehicle_id: str
    voltage_V_mean: float
    current_A_mean: float
    temperature_C_mean: float
    temperature_C_max: float
    discharge_time_s: float
    delta_T_C: float
    voltage_drop_time_s: float


@app.post("/predict")
async def predict(body: Features) -> dict[str, float]:
    """Capacity in Ah."""
    row = np.array(
        [
            [
                body.voltage_V_mean,
                body.current_A_mean,
                body.temperature_C_mean,
                body.temperature_C_max,
                body.discharge_time_s,
                body.delta_T_C,
                body.voltage_drop_time_s,
            ]
        ],
        dtype=np.float32,
    )
    return {"capacity_ah": float(session.run(None, {"features": row})[0][0, 0])}
