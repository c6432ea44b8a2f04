"""What the server of processes.py imports once, so that its children need not. No tensors, no threads, no CUDA."""

import atexit
import gc
import os

gc.disable()

import matplotlib.backends.backend_agg
import matplotlib.figure
import PIL.PngImagePlugin
import torch.utils.tensorboard

import losslab.cli
import losslab.experiment
import losslab.launcher
import losslab.report

gc.freeze()  # the children share these pages as long as no collection writes into them
gc.enable()

# The server has nothing to save: to take torch apart would take it a second, in which it still holds memory.
atexit.register(os._exit, 0)
