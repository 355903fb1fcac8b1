"""What a stage costs: by its settings, as it runs now, and what is left of it after it has been destroyed."""
