"""`kennel plan`: what serves a given load within a latency goal, and what that costs; a simulation, no AWS call."""
