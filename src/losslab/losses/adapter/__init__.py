"""The adapter: makes a criterion of any origin, such as torch.nn, another library or a user's function, into a `Loss`.

`adapted` has the entry point `adapt` and its result `Adapted`. `probe` finds out how the criterion is called and how it
scores single examples; `output_kind` finds out how it interprets the outputs of the network, also for the doctor.
"""
