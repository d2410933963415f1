"""The flow beside the ensemble of perceptrons, on one run's own split: errors of both, and what each loses without a column."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cinn_clusters.columns import INPUT_NAMES, LOOKBACK, TARGETS
from cinn_clusters.ensemble import Phase, fit_ensemble
from cinn_clusters.optimum import true_coverage, true_estimates
from cinn_clusters.sensitivity import GROUPS, Sensitivity, ablation, permutation, relative_errors
from cinn_clusters.sensitivity_map import sensitivity_map
from skyloom.data import Columns, Data
from skyloom.flows import from_json
from skyloom.plots import save, style
from skyloom.run import Run
from skyloom.run.files import write_json, write_whole

__all__ = ["compare", "ensemble_estimate"]

Estimate = Callable[[Tensor], Tensor]  # from inputs [B, C] to targets [B, 6], both in the catalogue's units


def compare(
    run: Run,
    members: int = 7,
    width: int = 256,
    epochs: Sequence[int] = (100, 50),
    repeats: int = 20,
    draws: int = 100,
    ablation_width: int | None = 64,
    ablation_epochs: Sequence[int] = (20, 10),
    seed: int = 0,
) -> dict[str, Any]:
    """Train the ensemble on the run's training split, and write into `compare/` of the run: `errors.json` (errors of the
    ensemble's median, of the flow's median and maximum, and on synthetic clusters of those of the true posterior), and for both
    models `sensitivity_*.csv` with its heat-map. A flow for inputs that may be missing is ablated too, by not being told.

    Arguments:
        epochs: Of the ensemble's phases, squared errors and absolute errors.
        repeats: Permutations of each column.
        draws: Of the flow's posterior, whose median is its estimate under permutation.
        ablation_width: Width of the ensembles that are retrained without each column; None: none are. Their gains and losses
            are against one of the same width and `ablation_epochs`.
    """
    from hydra.utils import instantiate

    from skyloom.training.saved import load_task

    task, about = load_task(run)
    data: Data = instantiate(run.config["data"], _convert_="all")
    folder = run.directory / "compare"
    folder.mkdir(exist_ok=True)
    fit = partial(_fitted, data, about, members, seed)
    everything = fit(range(len(about["inputs"])), width=width, epochs=epochs)
    task.draws = draws
    flow = partial(_flow_median, task, seed)

    context = data.test["context"]
    constant = data.train["target"].median(0).values.expand_as(data.test["target"])
    estimates = {"ensemble": everything(context), "flow median": flow(context), "flow map": _map(task, context)}
    exact, covered = _of_the_truth(data.test, about, seed)
    errors = _errors(data.test, constant, estimates | exact)
    found = {"synthetic": about["synthetic"], "rows": len(data.test), "relative mean absolute error": errors}
    write_json(folder / "errors.json", found | ({"coverage of the true posterior": covered} if covered else {}))

    tables = {
        "ensemble_permutation": _permuted(everything, data.test, constant, repeats),
        "flow_permutation": _permuted(flow, data.test, constant, max(1, repeats // 5)),
    }
    if ablation_width is not None:
        narrow = partial(fit, width=ablation_width, epochs=ablation_epochs)
        tables["ensemble_ablation"] = _ablated(narrow, data.test, constant)
    if task.hidden:
        told = {name: columns for name, columns in GROUPS.items() if LOOKBACK not in columns}  # withheld, it bounds no age
        tables["flow_ablation"] = _ablated(partial(_seeing, flow), data.test, constant, told)
    for name, table in tables.items():
        _save(table, name, folder, about["synthetic"])
    means = {name: round(float(np.mean([e[c.symbol] for c in TARGETS])), 4) for name, e in errors.items()}
    return {**means, "written": str(folder)}


def _fitted(
    data: Data, about: Mapping[str, Any], members: int, seed: int, columns: Sequence[int], width: int, epochs: Sequence[int]
) -> Estimate:
    """An ensemble of those columns, trained by squared errors and then by absolute ones."""
    phases = (Phase("mse", int(epochs[0]), 1e-3), Phase("mae", int(epochs[1]), 5e-4))
    return ensemble_estimate(data, about, columns, members=members, width=width, phases=phases, seed=seed)


def _flow_median(task: Any, seed: int, context: Tensor) -> Tensor:
    """Medians of the flow's marginals, by the same noise for the same number of rows."""
    torch.manual_seed(seed)
    return task.sample(context).median(1).values


def _permuted(estimate: Estimate, test: Columns, constant: Tensor, repeats: int) -> Sensitivity:
    return permutation(
        estimate, test["context"], test["target"], constant,
        clusters=test["cluster_id"], snapshots=test["snapshot"], lookback=LOOKBACK, repeats=repeats,
    )  # fmt: skip


def _ablated(
    fit: Callable[[Sequence[int]], Estimate], test: Columns, constant: Tensor, groups: Mapping[str, Sequence[int]] = GROUPS
) -> Sensitivity:
    return ablation(fit, test["context"], test["target"], constant, test["cluster_id"], groups)


def ensemble_estimate(data: Data, about: Mapping[str, Any], columns: Sequence[int], **options: Any) -> Estimate:
    """`estimate(context) -> [B, 6]` in the catalogue's units, by an ensemble that sees those columns of the inputs alone.

    It is trained on the flow's own scaled targets; the median of a monotone map is the map of the median, so that its absolute
    errors aim at the same number in both units (but for the ratio, whose coordinate mixes three targets).
    """
    to_target, kept = from_json(about["target_transform"]), list(columns)
    logarithms = _logarithms(data.train["context"])[:, kept]
    centre, spread = logarithms.mean(0), logarithms.std(0)

    def scaled(rows: Tensor) -> Tensor:
        """Logarithms, scaled column by column: the whitening of the flow's inputs would mix the columns left out."""
        return (_logarithms(rows)[:, kept] - centre) / spread

    def answers(rows: Columns) -> Tensor:
        return to_target(rows["target"].float(), rows["context"].float())[0]

    net, _ = fit_ensemble(
        scaled(data.train["context"]), answers(data.train), scaled(data.val["context"]), answers(data.val),
        groups=data.train["cluster_id"], **options,
    )  # fmt: skip
    return lambda rows: to_target.inverse(net.median(scaled(rows)), rows.float())


def _logarithms(context: Tensor) -> Tensor:
    """Of the masses and the radius; the lookback time, which is zero today, as it is."""
    logarithms = context.float().log()
    logarithms[:, LOOKBACK] = context[:, LOOKBACK].float()
    return logarithms


def _seeing(estimate: Estimate, columns: Sequence[int]) -> Estimate:
    """The estimate of a flow for inputs that may be missing, of those columns alone: an ablation without another training."""

    def of(context: Tensor) -> Tensor:
        given = torch.full_like(context, torch.nan)
        given[:, list(columns)] = context[:, list(columns)]
        return estimate(given)

    return of


def _of_the_truth(test: Columns, about: Mapping[str, Any], seed: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Of the true posterior, where there is one (synthetic clusters, scalars alone): its median and its maximum, and the
    share of these rows that its intervals hold."""
    if not about["synthetic"] or "log_prob_true" not in test.columns or len(about["inputs"]) > len(INPUT_NAMES):
        return {}, {}
    context, target = test["context"].double().numpy(), test["target"].double().numpy()
    found = true_estimates(context, from_json(about["target_transform"]), seed=seed)
    covered = {
        f"{level:.0%}": dict(zip([c.symbol for c in TARGETS], true_coverage(context, target, level).tolist(), strict=True))
        for level in (0.68, 0.95)
    }
    return {f"true {name}": torch.as_tensor(values, dtype=torch.float32) for name, values in found.items()}, covered


def _map(task: Any, context: Tensor) -> Tensor:
    torch.manual_seed(0)
    return torch.cat([task.map_estimate(part) for part in context.float().split(512)])


def _errors(test: Columns, constant: Tensor, estimates: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
    relative = {name: relative_errors(test["target"], e, constant).mean(0).tolist() for name, e in estimates.items()}
    return {name: dict(zip([c.symbol for c in TARGETS], values, strict=True)) for name, values in relative.items()}


def _save(table: Sensitivity, name: str, folder: Path, synthetic: bool) -> None:
    """`sensitivity_<name>` as CSV and as a heat-map."""
    rows = table.rows()
    with write_whole(folder / f"sensitivity_{name}.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with style():
        figure, _ = sensitivity_map(table, name.replace("_", ", "), synthetic)
        save(figure, folder / f"sensitivity_{name}.png")
