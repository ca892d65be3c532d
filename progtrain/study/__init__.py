"""Studies: arms, seeds and a primary metric, declared before the first run."""
