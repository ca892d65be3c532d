"""Format, durable writing, verified reading, and the run's lock."""
