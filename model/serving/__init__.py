"""The serving program: HTTP in front of worker processes that run the model."""
