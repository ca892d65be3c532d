"""What of the training data a step sees: one file a curriculum."""
