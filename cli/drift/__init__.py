"""`kennel drift`: whether callers' images and the answers to them are still like those of the training."""
