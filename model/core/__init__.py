"""What training and serving share: the model card, decoding, transforms, networks, the predictor, packaging."""
