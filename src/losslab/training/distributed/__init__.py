"""Worker processes, ranks and signals. Imports no torch until a process needs it.

environment: the rank of this process, from the variables of torchrun or SLURM, and the process group.
spawn: starts the ranks of a run as child processes and collects their result; worker is what a child executes.
signals: Ctrl-C, SIGTERM and SLURM's signals during training, and the agreement of all ranks on the step to stop at.
"""
