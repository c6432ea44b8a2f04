"""The card of a loss as text, and its curves as a figure."""
