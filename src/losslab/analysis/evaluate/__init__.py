"""What a finished run is worth: its figures, the answers to each example, and the network handed on to others."""
