"""What the project is timed beside: programs as somebody else would write them."""
