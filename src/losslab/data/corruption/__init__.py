"""Corruptions of the training targets, made on purpose: wrong labels, rare classes, outliers, and noise on values.

A corruption is a function of the data and a seed, so all losses trained with one seed get the same corruption. It
changes the training split, but not its `truth`; validation and test stay clean. base.py has the base class, manifest.py
records what was changed, and figure.py draws it. The other modules have one kind of corruption each.
"""
