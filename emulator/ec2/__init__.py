"""EC2 instances: the user data of each is run for real, as a process of this machine."""
