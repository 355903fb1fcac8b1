"""What every service of the local AWS stands on: the server, its state, processes, the JSON protocol."""
