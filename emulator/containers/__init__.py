"""What a process finds that stands for a container: its own Python environment, /opt/ml, AWS's serving toolkits."""
