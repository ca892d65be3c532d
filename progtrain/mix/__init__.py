"""How training samples are mixed with each other: one file a way."""
