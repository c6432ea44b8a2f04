"""The adapter: makes a criterion of any origin, such as torch.nn, another library or a user's function, into a `Loss`.

`adapted` has the function `adapt`. `probe` finds out how to call the criterion, `form` how to get the losses of single
examples, and `output_kind` how it interprets the outputs of the network. `state` records and restores what calls
change. `losslab.doctor` uses the last two for any loss.
"""
