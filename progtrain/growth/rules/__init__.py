"""How each torch function passes axes on: one small rule a function."""
