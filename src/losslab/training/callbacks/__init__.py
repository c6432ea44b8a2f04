"""Callbacks of a training run.

checkpoint, history, weight_trajectory: write the files of the run folder. checkpoint_state: what a checkpoint contains.
disk: lets them tolerate a full disk.
non_finite, gradient_norms: check losses, gradients and weights.
progress, tensorboard: show the progress, and write the pages of TensorBoard other than the curves.
loss_schedules, lookahead, whitening: change the loss or the weights during training.
"""
