"""Wiring only, split by lifecycle: storage outlives the others, training is disposable, inference follows the model."""
