"""Where a run's numbers are shown while it runs: console, TensorBoard, Weights & Biases; several at once.

The truth is the run directory (`metrics.jsonl` is always written, by the run itself). A tracker is a window on it: it
can be missing, full, or offline, and training goes on.

>>> import tempfile
>>> trackers = Trackers([Console()])
>>> with tempfile.TemporaryDirectory() as directory, trackers:
...     trackers.start("20261121-101502-k3f9q", directory, config={"seed": 1})
...     trackers.log({"epoch": 1, "train/loss": 0.7}, step=10)
...     trackers.log({"epoch": 1, "val/nll": 0.25}, step=10)
...     trackers.finish("finished", {"test/nll": 0.26})
epoch 1  step 10  train/loss 0.7  val/nll 0.25
"""

from skyloom.tracking.console import Console
from skyloom.tracking.tensorboard import TensorBoard
from skyloom.tracking.tracker import Identity, Tracker, Trackers
from skyloom.tracking.weights_and_biases import WandB

__all__ = ["Console", "Identity", "TensorBoard", "Tracker", "Trackers", "WandB"]
