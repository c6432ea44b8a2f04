"""Worker processes, ranks and signals."""
