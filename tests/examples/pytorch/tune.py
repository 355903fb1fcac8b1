"""Search the learning rate and the optimizer of train.py with SageMaker's SDK: python tune.py BUCKET ROLE_ARN"""

import json
import sys

import sagemaker
from sagemaker.pytorch import PyTorch
from sagemaker.tuner import CategoricalParameter, ContinuousParameter, HyperparameterTuner

bucket, role = sys.argv[1:]
session = sagemaker.Session(default_bucket=bucket)
points = json.dumps([[x / 10, 3 * x / 10 + 1] for x in range(-10, 11)])
data = session.upload_string_as_file_body(points, bucket, "line/points/points.json").rpartition("/")[0]
machine = {"instance_type": "ml.m5.large", "instance_count": 1, "framework_version": "2.6", "py_version": "py312"}
place = {"source_dir": "code", "role": role, "sagemaker_session": session, "output_path": f"s3://{bucket}/line"}
tuner = HyperparameterTuner(
    PyTorch(entry_point="train.py", **place, **machine),
    "loss",
    {"lr": ContinuousParameter(0.001, 0.5, "Logarithmic"), "optimizer": CategoricalParameter(["SGD", "Adam"])},
    metric_definitions=[{"Name": "loss", "Regex": "validation loss: ([0-9.]+)"}],
    objective_type="Minimize",
    max_jobs=3,
    max_parallel_jobs=1,
)
tuner.fit({"points": data})
best = tuner.describe()["BestTrainingJob"]
found = best["FinalHyperParameterTuningJobObjectiveMetric"]["Value"]
print(f"best: {best['TrainingJobName']} of {tuner.describe()['TrainingJobStatusCounters']['Completed']}, loss {found}")
