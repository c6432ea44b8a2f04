"""Imported once by the forkserver, so that its children start quickly. Creates no tensors, threads or CUDA contexts."""

import atexit
import ctypes
import gc
import importlib
import os
import signal
import sys

# The server does not notice the end of its parent before these imports are done.
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, which forked processes do not inherit
if str(os.getppid()) != os.environ.get("LOSSLAB_PARENT", str(os.getppid())):
    os._exit(0)  # the parent ended before prctl
gc.disable()
for name in (
    "losslab.cli.train",
    "losslab.training.experiment",
    "losslab.sweep.launcher",
    "losslab.cli.report",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "PIL.PngImagePlugin",
    "torch.utils.tensorboard",
):
    importlib.import_module(name)
gc.freeze()  # the children share these pages as long as no garbage collection writes to them
gc.enable()
# The server has nothing to save. Unloading torch would take a second, and keep its memory until then.
atexit.register(os._exit, 0)
