"""What the source system does: Flask's development server, and a DataFrame for every row."""

import os
from typing import Any

import pandas as pd
import xgboost as xgb
from flask import Flask, request  # type: ignore[import-not-found]  # in its own environment

model = xgb.XGBRegressor()
model.load_model(os.environ["MODEL"])
app = Flask(__name__)


def predict() -> dict[str, Any]:
    """Capacity in Ah."""
    body = dict(request.get_json())
    vehicle_id = body.pop("vehicle_id")
    frame = pd.DataFrame([body])
    return {"vehicle_id": vehicle_id, "capacity_ah": float(model.predict(frame)[0])}


app.add_url_rule("/predict", view_func=predict, methods=["POST"])

if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ["PORT"]))
