"""Serve the forest: rows of features as CSV, a label for each."""

import joblib


def model_fn(model_dir):
    return joblib.load(f"{model_dir}/model.joblib")


def predict_fn(rows, model):
    return model.predict(rows).astype(int)


def output_fn(labels, accept):
    return "\n".join(map(str, labels)), "text/csv"
