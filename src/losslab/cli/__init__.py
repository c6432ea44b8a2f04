"""The console command `losslab VERB`: a module for each verb, with a function of the same name.

`main` finds the verb; `process` sets up the process, handles errors, and defines the options that verbs share; `run`
trains a run; `report` logs the settings and results of a run.
"""
