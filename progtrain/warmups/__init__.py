"""How what is new joins: one file a warmup."""
