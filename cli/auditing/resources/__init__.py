"""Checks of resources: who may use them, what they lack, and what nobody uses."""
