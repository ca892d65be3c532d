"""What grows and with which values: one file an operator."""
