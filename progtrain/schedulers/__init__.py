"""The learning rate over time: one file a shape."""
