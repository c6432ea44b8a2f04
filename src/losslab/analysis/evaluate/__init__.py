"""Evaluation of a finished run: metrics, predictions and figures of a split, classification of images, and export.

evaluation    evaluates a run on a split; `report` writes the result
predictions   what the network's outputs mean, per example; `metrics` and `soft_labels` compute from them
figures       draws the result
predict       classifies image files with a run
export        writes the network as a torch.export program
"""
