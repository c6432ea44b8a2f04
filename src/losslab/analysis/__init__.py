"""Analysis of finished runs: evaluation, comparison, explanations, training dynamics, loss matrix, loss cards."""
