"""Training runs from Hydra configurations.

`config` composes and resolves a configuration, `experiment` builds and runs it, `reopen` builds a finished run again.
They use `instantiate`, `preflight`, `trainer`, `callbacks`, `loggers`, `weights` and `teacher`. `distributed` is for
runs on several ranks.
"""
