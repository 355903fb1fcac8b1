"""Our predictor with the network in PyTorch, as the peers run it: `weights.pt` in eager mode, one thread."""

from pathlib import Path

import torch

from model.core.artifact import WEIGHTS_FILE, ModelCard
from model.core.network import build
from model.core.predictor import FloatArray, Predictor


def load(model_dir: Path) -> Predictor:
    """Load an artifact's folder and run the network once."""
    torch.set_num_threads(1)
    card = ModelCard.load(model_dir)
    weights = model_dir / WEIGHTS_FILE
    network = build(card.architecture, len(card.labels), weights=weights, input_size=card.input_size).eval()

    @torch.inference_mode()
    def run(images: FloatArray) -> list[FloatArray]:
        logits: torch.Tensor = network(torch.from_numpy(images))
        return [logits.numpy()]

    predictor = Predictor(card, run)
    predictor.check()
    return predictor
