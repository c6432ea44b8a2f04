"""What Lightning times its hooks with while nobody asked for a profile: nothing."""

from contextlib import AbstractContextManager, nullcontext

from lightning.pytorch.profilers import PassThroughProfiler

_NOTHING = nullcontext()


class Unprofiled(PassThroughProfiler):
    """Lightning's profiler that measures nothing, without a generator for each of some eighty hooks a step."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]  # noqa: ARG002
        """One context for all: there is nothing to enter or leave."""
        return _NOTHING
