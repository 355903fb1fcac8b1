"""Who gets in: credentials, signatures, what is asked of IAM."""
