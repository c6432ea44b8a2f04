"""Findings in public implementations of losses, each measured on the installed version (scripts/audit.py)."""
