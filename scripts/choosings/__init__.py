"""What docs/choosing.md says, and the runs and numbers it says it with."""
