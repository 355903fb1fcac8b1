"""Endpoints: their operations, instances and runtime."""
