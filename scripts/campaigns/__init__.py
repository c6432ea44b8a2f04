"""How a generated page comes by its numbers: commands are run as they are printed, and what they gave is kept."""
