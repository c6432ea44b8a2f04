"""What the server of processes.py imports once, so that its children need not. No tensors, no threads, no CUDA."""

import atexit
import gc
import importlib
import os

gc.disable()
for name in (
    "losslab.cli",
    "losslab.experiment",
    "losslab.launcher",
    "losslab.report",
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
