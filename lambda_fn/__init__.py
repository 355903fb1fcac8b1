"""The function behind the classifier's URL: pure standard-library Python, nothing to bundle."""
