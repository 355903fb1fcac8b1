"""What MiniStack leaves out of S3."""
