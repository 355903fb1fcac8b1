"""Calls of AWS."""
