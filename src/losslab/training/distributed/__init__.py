"""Worker processes, ranks and signals. Imports no torch until a process needs it.

environment: the rank of this process, from the variables of torchrun or SLURM, and the process group.
spawn: starts the ranks of a run as child processes and waits for their result. worker: the code of a child process.
signals: Ctrl-C, SIGTERM and SLURM's signals during training, and the step at which all ranks stop.
"""
