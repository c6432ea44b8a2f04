"""Adapter: makes a `Loss` of a criterion of any origin, such as torch.nn, another library or a user's function.

`adapt` is the entry point and `Adapted` its result. `probe` finds out how the criterion is called, `per_example` how it
scores single examples, and `output_kind` what it takes the outputs of the network for, which the doctor uses too.
"""
