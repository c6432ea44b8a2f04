"""What the server of fork_server.py imports once, so that its children need not. No tensors, no threads, no CUDA."""

import atexit
import ctypes
import gc
import importlib
import os
import signal
import sys

# The server itself notices that its parent is gone only once it has imported all this.
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG; what it forks does not inherit it
if str(os.getppid()) != os.environ.get("LOSSLAB_PARENT", str(os.getppid())):
    os._exit(0)  # it was gone before
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
gc.freeze()  # the children share these pages as long as no collection writes into them
gc.enable()
# The server has nothing to save: to take torch apart would take it a second, in which it still holds memory.
atexit.register(os._exit, 0)
