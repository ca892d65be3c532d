"""What an optimizer remembers across a growth: one file a policy."""
