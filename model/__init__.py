"""What runs inside the training and serving containers, and nothing else."""

import os

# ONNX Runtime reports its use to its makers unless told not to, before it is imported. Nothing here calls home.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
