"""What can be made wrong with training data on purpose: wrong labels, rare classes, outliers, uneven noise.

A fault is a function of the data and of its seed, so that all losses of one seed meet the same fault. Only training
targets are touched: the truth, validation and test stay what they were.
"""
