"""The server that processes are forked from: it has torch and lightning imported, so that each starts at once."""

import multiprocessing
import os
import signal
import sys
import tempfile
from multiprocessing import forkserver, resource_tracker
from typing import Any

from losslab.errors import LabError


def context() -> Any:
    """Where processes come from: a server that forks them, or where there is none, new interpreters."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["losslab.training.distributed.forkserver_preload"])
    # It finds losslab where this process found it; and the terminal's Ctrl-C is for this process, not for the server.
    before = os.environ.get("PYTHONPATH")
    resource_tracker.ensure_running()  # which the server would start else, and in doing so unblock Ctrl-C
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "LOSSLAB_PARENT": str(os.getpid())}
    try:
        forkserver.ensure_running()
    except OSError as error:
        if "too long" not in str(error):
            raise
        raise LabError(
            f"{tempfile.gettempdir()} is too long a path for the socket of a process: set TMPDIR to a shorter one"
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.environ.pop("LOSSLAB_PARENT")
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before
    return context
