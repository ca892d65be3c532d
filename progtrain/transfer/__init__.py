"""What a growth hands on from the network before it (group `transfer`)."""
