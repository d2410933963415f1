"""The loop, and what it is made of. `Trainer` works in a notebook without any configuration:

>>> import torch
>>> from skyloom.data import Columns, Data
>>> from skyloom.training import Trainer
>>> class Line(torch.nn.Module):
...     def __init__(self):
...         super().__init__()
...         self.slope = torch.nn.Parameter(torch.zeros(()))
...     def losses(self, batch):
...         return {"loss": ((self.slope * batch["x"] - batch["y"]) ** 2).mean()}
...     def predict(self, batch):
...         return {"y_hat": self.slope * batch["x"]}
...     def score(self, predictions):
...         return {"mae": (predictions["y_hat"] - predictions["y"]).abs().mean()}
>>> x = torch.linspace(-1, 1, 600)
>>> parts = [Columns({"x": x[k::3], "y": 2 * x[k::3]}) for k in range(3)]
>>> data = Data(*parts, about={"fingerprint": "a line", "synthetic": True}, carry=("y",))
>>> task = Line()
>>> adam = lambda module: torch.optim.Adam(module.parameters(), lr=0.1)
>>> fitted = Trainer(epochs=60, batch_size=50, quiet=True).fit(task, data, adam)
>>> round(task.slope.item(), 2)
2.0
"""

from skyloom.training.fit import NonFinite, Pruned
from skyloom.training.task import Task
from skyloom.training.trainer import Trainer

__all__ = ["NonFinite", "Pruned", "Task", "Trainer"]
