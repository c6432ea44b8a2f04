"""Loss cards: the facts of a loss as text, its value and gradient as curves, and docs/losses.md with all losses."""
