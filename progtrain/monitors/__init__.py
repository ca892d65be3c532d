"""What watches growths: each monitor says what it has found, and which remedy follows."""
