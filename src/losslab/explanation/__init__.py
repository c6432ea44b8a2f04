"""Figures that say what a finished run learnt and how, one file a question."""
