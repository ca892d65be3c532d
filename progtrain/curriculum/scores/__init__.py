"""How hard a sample is: one file a score."""
