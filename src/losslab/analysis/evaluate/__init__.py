"""Evaluation of finished runs: metrics, predictions and figures of a split, classification of images, and export.

evaluation    evaluates a run on a split; `report` writes the result to files
predictions   the prediction for each example; `metrics` and `soft_labels` are computed from it
figures       draws the figures of an evaluation
predict       classifies image files with a run
export        writes the network as a torch.export program
"""
