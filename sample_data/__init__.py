"""Draws the sample data set behind `kennel data sample`: dogs of different breeds, as if photographed."""

from .dataset import DrawingError, draw_data_set

__all__ = ["DrawingError", "draw_data_set"]
