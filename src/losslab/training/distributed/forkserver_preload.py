"""Imported once by the forkserver, so that its children start quickly. Creates no tensors, threads or CUDA contexts."""

import atexit
import ctypes
import importlib
import os
import signal
import sys

# The server notices the end of its parent only when these imports are done. Until then the kernel must kill it.
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, which forked processes do not inherit
if str(os.getppid()) != os.environ.get("LOSSLAB_PARENT", str(os.getppid())):
    os._exit(0)  # the parent ended before prctl
with importlib.import_module("losslab.cli.process").fast_imports():
    for name in (
        "losslab.cli.train",
        "losslab.training.experiment",
        "losslab.sweep.launcher",
        "losslab.cli.report",
        "losslab.training.callbacks.tensorboard",
        "losslab.training.callbacks.history",
        "losslab.training.callbacks.gradient_norms",
        "matplotlib.backends.backend_agg",
        "matplotlib.figure",
        "PIL.PngImagePlugin",
        "torch.utils.tensorboard",
    ):
        importlib.import_module(name)
# The children share the memory of these objects: `fast_imports` froze them, so the garbage collector leaves them alone.
# The server has nothing to save, and unloading torch would take a second.
atexit.register(os._exit, 0)
