"""What `losslab show` prints and draws: the facts of a loss (`Card`), its value and gradient, and docs/losses.md."""
