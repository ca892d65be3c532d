"""Where and in which precision a run computes."""
