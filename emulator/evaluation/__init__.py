"""What users write, evaluated where it cannot hold the server."""
