"""Peer: linear regression as in Lightning's introduction, with a DataLoader and the default callbacks."""

import lightning
import matplotlib.pyplot as plt
import torch
from torch.utils.data import DataLoader, TensorDataset


class Regression(lightning.LightningModule):
    """A linear model that is trained with MSE and logs its loss in every step."""

    def __init__(self) -> None:
        super().__init__()
        self.model = torch.nn.Linear(1, 1)
        self.criterion = torch.nn.MSELoss()
        self.losses: list[float] = []

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:  # noqa: ARG002
        """Compute the loss of one batch."""
        x, y = batch
        loss: torch.Tensor = self.criterion(self.model(x), y)
        self.log("train/loss", loss)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.01)


x = torch.tensor([[1.0], [2.0], [3.0]])
module = Regression()
loader = DataLoader(TensorDataset(x, 2 * x), batch_size=3, shuffle=True)
lightning.Trainer(max_epochs=1000, log_every_n_steps=1, accelerator="cpu").fit(module, loader)
plt.plot(module.losses)
plt.savefig("loss.png")
