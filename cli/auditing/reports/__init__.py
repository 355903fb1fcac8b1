"""How the result of an audit looks."""
