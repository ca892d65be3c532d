"""How fast a curriculum lets in harder samples: one file a pacing."""
