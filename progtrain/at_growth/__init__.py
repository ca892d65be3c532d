"""What the learning rate does at a growth."""
