"""Networks; they know nothing of growth."""
