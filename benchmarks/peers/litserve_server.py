"""The benchmark's network behind LitServe: the hooks of its documentation, JSON with base64 as in its own benchmark."""

import base64
import os
from pathlib import Path

import litserve

from benchmarks.peers import pytorch_predictor
from model.core.predictor import Prediction


class Classifier(litserve.LitAPI):  # type: ignore[misc]  # installed for the benchmark only
    def setup(self, device: str) -> None:
        self.predictor = pytorch_predictor.load(Path(os.environ["SM_MODEL_DIR"]))

    def decode_request(self, request: dict[str, str]) -> bytes:
        return base64.b64decode(request["image_data"])

    def predict(self, image: bytes) -> Prediction:
        return self.predictor.predict(image)

    def encode_response(self, prediction: Prediction) -> dict[str, object]:
        return {"predictions": [{"label": label, "probability": value} for label, value in prediction.ranked]}


if __name__ == "__main__":
    workers = int(os.environ["WORKERS"])
    server = litserve.LitServer(Classifier(), accelerator="cpu", devices=1, workers_per_device=workers, timeout=120)
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False, log_level="warning")
