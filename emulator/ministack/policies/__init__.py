"""What IAM has of managed policies: AWS's own, and what it asks before one is attached."""
