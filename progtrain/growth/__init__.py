"""When, where and how a network grows."""
