"""One muon and the count distribution of given conditions as a graph of tensors, for programs without Skyloom."""

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from muonflow.coordinates import ceilings, from_flow
from skyloom.errors import ConfigError
from skyloom.flows.bound import Given, run

if TYPE_CHECKING:
    from muonflow.task import MuonBundles

__all__ = ["BundleGraph"]


class BundleGraph(nn.Module):
    """`condition` [B, 4] and `noise` [B, 2] (standard normal; as the flow's base says) to tensors: what a simulation calls."""

    def __init__(self, task: "MuonBundles") -> None:
        super().__init__()
        self.task = task
        if task.network.latent is not None:
            raise ConfigError("a model with a latent of the event cannot be written as one graph of single muons.")

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        condition, noise = batch["condition"], batch["noise"]
        context, network = self.task.embed(condition), self.task.network
        given = Given(context.T, False)  # the layers themselves: shapes that branch on the batch cannot be traced
        steps: Any = list(network.flow.steps)
        columns, _ = run(steps, [given] * len(steps), noise.T, inverse=True)
        y = network.target.inverse(columns.T)
        head: Any = network.count_head
        counts = head.network(self.task.features(condition))
        muons = from_flow(y, ceilings(condition))
        return {"muon": muons, "counts": counts}
