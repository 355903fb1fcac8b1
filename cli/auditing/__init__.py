"""`kennel audit`: what is unsafe in an account, and what to do about it."""
