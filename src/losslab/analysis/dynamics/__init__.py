"""Training dynamics: what a run's loss did to each of some fixed training examples, recorded, measured and drawn.

record      what is kept of a run: dynamics.npz
watching    which examples, and one look at them (this, flow and slope alone need torch)
flow        the gradient of each layer
slope       the loss's own gradient along a line of margins or residuals
measures    the numbers, with their definitions and sources
drawing     the figures, of one run or of several side by side
"""
