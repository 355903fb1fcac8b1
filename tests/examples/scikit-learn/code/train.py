"""Train a forest on the rows of train.csv: the label, then the features."""

import argparse
import os

import joblib
import numpy as np
from sklearn.ensemble import RandomForestClassifier

parser = argparse.ArgumentParser()
parser.add_argument("--trees", type=int, default=10)
trees = parser.parse_args().trees
rows = np.loadtxt(f"{os.environ['SM_CHANNEL_TRAIN']}/train.csv", delimiter=",")
joblib.dump(RandomForestClassifier(trees).fit(rows[:, 1:], rows[:, 0]), f"{os.environ['SM_MODEL_DIR']}/model.joblib")
