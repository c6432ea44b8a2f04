"""Long campaigns against the promises of docs/reliability.md: `make soak`. The tests run the same, for less long."""
