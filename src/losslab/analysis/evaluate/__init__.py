"""Evaluation of finished runs: metrics, predictions and figures of a split, classification of images, and export.

evaluation      evaluates a run on a split; `report` writes the result to files
predictions     the predictions for all examples of a split
extra_metrics   metrics of the predictions that training does not log
calibration     fits a temperature, logit adjustment or thresholds after training
soft_labels     compares the predictions with human label distributions
figures         draws the figures of an evaluation
predict         classifies image files with a run
export          writes the network of a run as a torch.export program
"""
