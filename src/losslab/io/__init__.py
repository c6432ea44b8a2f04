"""Files, tables, figures and terminal output."""
