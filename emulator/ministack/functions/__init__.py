"""Lambda: MiniStack's functions, as AWS's behave."""
