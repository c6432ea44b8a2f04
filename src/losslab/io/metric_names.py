"""Tells by the name of a metric whether it may be monitored, and whether lower values are better. Imports no torch."""

import re

from losslab.errors import LabError

COUNTS = ("epochs", "steps", "best_epoch")
"""The values in metrics.json that are no metrics."""
MONITORED = ("val/accuracy", "val/mse")
"""The metrics that select the best epoch: accuracy for classification, mean squared error for regression."""

_LOWER_IS_BETTER = {
    *("loss", "mse", "mae", "nll", "brier", "ece", "rmse", "mape", "smape", "msle", "rmsle", "error", "errors", "err"),
    *("regret", "perplexity", "ppl", "crps", "wer", "cer", "fpr", "fnr", "divergence", "kl", "deviance", "fid", "eer"),
}
_HIGHER_IS_BETTER = {
    *("accuracy", "acc", "precision", "recall", "f1", "r2", "auroc", "auc", "auprc", "ap", "map", "sensitivity"),
    *("specificity", "tpr", "tnr", "kappa", "mcc", "corrcoef", "iou", "miou", "jaccard", "dice", "pearson", "spearman"),
    *("psnr", "ssim", "bleu", "top1", "top3", "top5"),
}


def direction(metric: str, advice: str = "compare by another metric") -> str:
    """Return "min" if lower values of a metric, a loss or a loss term are better, "max" if higher values are.

    Words in the name decide, such as "loss" in "val/hinge_loss" and "AUROC" in "val/MulticlassAUROC".

    Raises:
        LabError: the name does not tell. The message ends with `advice`.
    """
    words = re.findall(r"m?IoU|[A-Z]+[0-9]*(?![a-z])|[A-Za-z][a-z]*[0-9]*", metric)
    known = [word.lower() for word in words if word.lower() in _LOWER_IS_BETTER | _HIGHER_IS_BETTER]
    if not known:
        raise LabError(f"whether higher or lower values of {metric} are better is not known: {advice}")
    return "min" if _LOWER_IS_BETTER.intersection(known) else "max"
