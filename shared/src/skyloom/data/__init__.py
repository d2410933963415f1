"""Three splits, what is known of them, and how to draw batches from them."""

from skyloom.data.columns import Columns, fingerprint
from skyloom.data.draws import SampleDraws
from skyloom.data.split import group_split
from skyloom.data.splits import Batch, Data
from skyloom.data.standardise import Standardise

__all__ = ["Batch", "Columns", "Data", "SampleDraws", "Standardise", "fingerprint", "group_split"]
