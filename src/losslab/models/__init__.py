"""Plain networks. Each is made from the shape of an input and the number of outputs; none knows a loss."""
