"""Parts of scripts/golden.py."""
