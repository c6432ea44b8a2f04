"""What the adapter finds out about a criterion of unknown origin, each in a module: call, form and meaning."""
