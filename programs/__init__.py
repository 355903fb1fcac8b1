"""What AWS runs besides the model and the function; each folder is one asset and imports nothing of this project."""
