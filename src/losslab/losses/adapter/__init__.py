"""The adapter: makes a criterion of any origin, such as torch.nn, another library or a user's function, into a `Loss`.

`adapted` has the function `adapt`. `probe` finds out how to call the criterion and how to get the losses of single
examples; `output_kind` finds out how it interprets the outputs of the network, also for `losslab.doctor`.
"""
