"""Serves a model with the functions of a user's script, as AWS's containers for PyTorch and scikit-learn do.

It stands for the packages of those images: it runs in an instance's own Python, and imports nothing of the local AWS.
"""
