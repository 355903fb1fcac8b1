"""One AWS thing each, in AWS's own words. Constructs own resources and permissions; stacks only wire them."""
