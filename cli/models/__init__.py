"""`kennel models`: which packaged models there are, who approved them, which one is deployed."""
