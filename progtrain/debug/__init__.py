"""Ways to look into a run: each takes the machine to its end and says what it has seen."""
