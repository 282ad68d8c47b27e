"""Save the booster as an MLflow model, for `mlflow models serve`, into the folder given."""

import os
import shutil
import sys

import mlflow.xgboost
import xgboost as xgb

folder = sys.argv[1]
shutil.rmtree(folder, ignore_errors=True)
booster = xgb.Booster(model_file=os.environ["MODEL"])
mlflow.xgboost.save_model(booster, folder, pip_requirements=[])
