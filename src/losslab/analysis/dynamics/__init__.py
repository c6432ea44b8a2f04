"""Training dynamics: outputs, loss, margin and gradient of fixed training examples, recorded over the epochs.

callback    the Lightning callback `Dynamics`, which records snapshots, writes dynamics.npz and draws the figures
record      the arrays of dynamics.npz; imports no torch
recording   one snapshot of the recorded examples; `gradients` computes its gradients
metrics     metrics of a record, with definitions and sources; imports no torch
figures     the figures of one run, or of several side by side; imports no torch
"""
