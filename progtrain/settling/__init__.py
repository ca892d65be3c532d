"""What the learning rate does after a growth, so that the network settles."""
