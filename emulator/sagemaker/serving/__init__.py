"""One instance of a model: what stands for its container, the process, and the connections to it."""
