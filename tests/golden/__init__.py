"""Golden bits: the losses and final weights of a tiny run of every loss, compared with committed files.

`python -m golden` in tests/ compares them from the command line, `--write` records those of this machine.
"""
