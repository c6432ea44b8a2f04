"""From a Hydra configuration to a trained run.

`config` composes, `experiment` builds and runs, `reopen` builds a finished run again. They use `instantiate`,
`preflight`, `trainer`, `callbacks`, `loggers`, `weights` and `teacher`; `distributed` is for runs of several ranks.
"""
