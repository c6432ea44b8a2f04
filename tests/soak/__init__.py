"""Long campaigns that test the promises of docs/reliability.md (`make soak`). The tests run short versions of them."""
