"""How training images are varied: one file a way."""
