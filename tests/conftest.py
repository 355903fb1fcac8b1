"""What holds for all tests."""

import os

# OpenMP's threads spin while they wait; on a busy machine they take the cores from those that have work. Set before
# torch is imported, and inherited by every program that a test starts.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
