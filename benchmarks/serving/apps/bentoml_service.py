"""A BentoML service: one row of named features in, the capacity out."""

import os

import bentoml  # type: ignore[import-not-found]  # in its own environment
import numpy as np
import xgboost as xgb


@bentoml.service(workers=1, traffic={"timeout": 60})
class Soh:
    """Holds the booster."""

    def __init__(self) -> None:
        self.booster = xgb.Booster(model_file=os.environ["MODEL"])
        self.booster.set_param({"nthread": 1})

    @bentoml.api  # type: ignore[untyped-decorator]  # BentoML is not here to be looked at
    def predict(self, features: list[float]) -> dict[str, float]:
        """Capacity in Ah."""
        row = np.array([features], dtype=np.float32)
        answer = self.booster.inplace_predict(row, validate_features=False)
        return {"capacity_ah": float(answer[0])}
