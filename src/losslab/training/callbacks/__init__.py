"""Callbacks of a training run.

checkpoint, history, weight_trajectory: write the run folder's files; disk: how they treat a full disk.
non_finite, gradient_norms: watch losses, gradients and weights; async_copy: read from a GPU without waiting for it.
progress, tensorboard: the progress bar, and TensorBoard's pages besides the curves.
loss_schedules, lookahead, whitening: change the loss or the weights during training.
"""
