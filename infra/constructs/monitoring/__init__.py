"""What is measured of a stage, when somebody is told, and what they look at."""
