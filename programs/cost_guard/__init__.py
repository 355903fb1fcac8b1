"""The function of the cost guard: AWS runs it on a schedule."""
