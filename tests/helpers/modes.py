"""An optimizer with a mode of its own, as schedule-free optimizers have."""

import torch


class Modal(torch.optim.SGD):
    """Trains weights that are three times those to evaluate."""

    def __init__(self, params, lr=1e-3):
        super().__init__(params, lr=lr)
        self.param_groups[0]["training"] = False

    def train(self):
        self._switch(training=True)

    def eval(self):
        self._switch(training=False)

    def _switch(self, *, training):
        if training is not self.param_groups[0]["training"]:
            self.param_groups[0]["training"] = training
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.data.mul_(3 if training else 1 / 3)

    def step(self, closure):
        if not self.param_groups[0]["training"]:
            raise RuntimeError("call train() first")
        return super().step(closure)
