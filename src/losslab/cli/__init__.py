"""The console command `losslab VERB`: a module for each verb, with a function of its name.

`main` finds the verb, `process` handles errors and exit codes, `options` and `report` are shared by verbs, `run` trains
a run for `train` and `resume`.
"""
