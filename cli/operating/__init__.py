"""`kennel deploy`, `kennel destroy`, and what they check before and after."""
