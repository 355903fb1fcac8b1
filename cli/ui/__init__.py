"""`kennel ui`: a page on this machine that asks the deployed function about images."""
