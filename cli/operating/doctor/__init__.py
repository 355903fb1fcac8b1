"""`kennel doctor`: whether what is deployed is what the settings say, and works."""
