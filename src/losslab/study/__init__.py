"""A study compares groups of runs fairly: tunes each at equal cost, races them on fresh seeds, and answers.

settings      the settings study.*, the groups that are compared, and the trials of the tuning
tuning        the results of the trials, and the best trial of each group
sequential    the tests that are repeated as seeds are added
race          the values of all groups by seed, and the decision about each group
test_items    evaluates the runs again: methods that are fitted after training, and another test set
answer        the sentence, the table and the protocol, and their files
figures       the figure of the race, and the parts that all figures share
tuning_figures  the figures of the tuning, and of one learning rate for all
stage         the runs of one part of a study, which are a sweep of their own
sweeper       the Hydra sweeper that runs a study; imports no torch
"""
