"""The benchmark's network behind BentoML: a service class with an API of one image, sent as the request's body."""

import os
from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType

from benchmarks.peers import pytorch_predictor


@bentoml.service(workers=int(os.environ["WORKERS"]), traffic={"timeout": 120})
class Classifier:
    def __init__(self) -> None:
        self.predictor = pytorch_predictor.load(Path(os.environ["SM_MODEL_DIR"]))

    @bentoml.api  # type: ignore[untyped-decorator]  # installed for the benchmark only
    def classify(self, image: Annotated[Path, ContentType("image/jpeg")], /) -> dict[str, object]:
        prediction = self.predictor.predict(image.read_bytes())
        return {"predictions": [{"label": label, "probability": value} for label, value in prediction.ranked]}
