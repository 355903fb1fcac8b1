"""Draws the sample data set behind `kennel data sample`: dogs of different breeds, as if photographed."""

from .breeds import BREEDS
from .dataset import DrawingError, Summary, draw_data_set

__all__ = ["BREEDS", "DrawingError", "Summary", "draw_data_set"]
