"""Training dynamics: outputs, loss, margin and gradient of fixed training examples, recorded over the epochs.

callback    the Lightning callback `Dynamics`, which takes snapshots, writes dynamics.npz and draws the figures
recording   takes one snapshot of the recorded examples
record      the arrays in dynamics.npz and metrics computed from them; imports no torch
figures     figures of one run, or of several runs side by side; imports no torch
"""
