"""Corruptions of the training targets, made on purpose: wrong labels, rare classes, outliers, uneven noise.

A corruption is a function of the data and its seed, so all losses trained with one seed get the same one. It changes
training targets only: the truth, validation and test stay clean. base.py has the base class, manifest.py records what
was changed, and each other module has the corruptions of one kind.
"""
