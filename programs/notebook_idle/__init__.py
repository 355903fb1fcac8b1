"""Stops a notebook instance that nobody uses."""
