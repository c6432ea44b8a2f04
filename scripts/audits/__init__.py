"""Findings in public implementations of losses, each measured on the installed version by scripts/audit.py."""
