"""What docs/lessons.md says, and the runs and numbers it says it with."""
