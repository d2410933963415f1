"""Several finders as one: trained one after the other or together, fused on validation, judged against their best member."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from lensfind.calibration.calibrating import calibration
from lensfind.ensembles.fusing import RULES, Fusion, fuse, worth_keeping
from lensfind.features.colours import arc_colours
from lensfind.training.task import Scored
from skyloom.data import Batch, Data
from skyloom.data.tables import read_columns, write_columns
from skyloom.errors import ConfigError, DataError, nearest
from skyloom.metrics import Estimate, Ranking, delong
from skyloom.run import Run
from skyloom.run.seeds import derive, numpy_generator
from skyloom.training import Trainer, checkpoints, workflow
from skyloom.training.progress import said

__all__ = ["Ensemble", "colour_agreement", "compared", "train"]

_VARIANCES = ("dropout_variance", "aleatoric_variance")


class Ensemble(Scored):
    """Members behind the three methods of a task; `members` are names with tasks, not yet built.

    A member sees cutouts at its own size by its `scales`. `rule` is one of `fusing.RULES`. With `colour_score` a stack
    may use how well the colours of the arcs agree, beside the members, if validation shows that it helps.

    Predictions: the fused `logit`, its calibration, every member's logit [B, members], and what their disagreement says:
    mutual_information (epistemic) and expected_entropy (aleatoric).
    """

    slopes: Tensor
    offsets: Tensor
    weights: Tensor
    numbers: Tensor

    def __init__(
        self,
        about: dict[str, Any],
        members: Mapping[str, Callable[..., nn.Module]],
        rule: str = "mean_logit",
        colour_score: bool = False,
    ):
        super().__init__(float(about["class_prior"]))
        if len(members) < 2:
            raise ConfigError(f"an ensemble has at least two members, not {len(members)}.")
        if rule not in RULES:
            raise ConfigError(f"there is no rule {rule!r}.{nearest(rule, RULES)}")
        if colour_score and (rule != "stack" or len(about["bands"]) < 2):
            raise ConfigError("a colour score needs rule=stack and more than one band.")
        self.names, self.rule, self.about, self.colour_score = list(members), rule, about, colour_score
        self.members = nn.ModuleDict({name: member(about=about) for name, member in members.items()})
        count = len(self.names)
        self.register_buffer("slopes", torch.ones(count))
        self.register_buffer("offsets", torch.zeros(count))
        self.register_buffer("weights", torch.full((count,), 1 / count))
        self.register_buffer("numbers", torch.zeros(2))  # intercept, weight of the score

    @property
    def fusion(self) -> Fusion:
        arrays = [value.cpu().double().numpy() for value in (self.slopes, self.offsets, self.weights)]
        return Fusion(self.rule, *arrays, *(float(v) for v in self.numbers))  # type: ignore[arg-type]

    def take(self, fusion: Fusion) -> None:
        for name in ("slopes", "offsets", "weights"):
            getattr(self, name).copy_(torch.from_numpy(getattr(fusion, name)))
        self.numbers.copy_(torch.tensor([fusion.intercept, fusion.score_weight]))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Of all members on the same batch, summed: training together is one pass over the data."""
        each = {name: member.losses(batch) for name, member in self.members.items()}  # type: ignore[operator]
        terms = {"loss": torch.stack([losses["loss"] for losses in each.values()]).sum()}
        return terms | {name: losses["loss"].detach() for name, losses in each.items()}

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        each = [member.predict(batch) for member in self.members.values()]  # type: ignore[operator]
        z = torch.stack([out["logit"].detach().double() for out in each]).cpu().numpy()
        columns = fused(self.fusion, z, _variances(each), self.score_of(batch))
        return {name: torch.from_numpy(value).float() for name, value in columns.items()} | self.calibrated(
            torch.from_numpy(columns["logit"]).float().to(self.slope.device)
        )

    def score_of(self, batch: Batch) -> np.ndarray | None:
        if not self.colour_score:
            return None
        return colour_agreement(batch["image"].float().cpu(), self.about)


def colour_agreement(images: Tensor, about: Mapping[str, Any]) -> np.ndarray:
    """-ln(1 + chi^2 per degree of freedom) of the arcs' colours; 0 where fewer than two segments stand out: a physical score
    that differs from image to image."""
    pixel = float(about["survey"]["pixel_scale"])
    noise = torch.tensor(about["statistics"]["noise"])[:, None, None]
    wavelengths = torch.tensor([float(band["wavelength"]) for band in about["survey"]["bands"].values()])
    outer = min(2.6 / pixel, images.shape[-1] / 2 - 1)
    return -arc_colours(images, noise, wavelengths, 0.5 / pixel, outer)[:, 0].double().numpy()


def _variances(each: list[dict[str, Tensor]]) -> np.ndarray | None:
    """[members, n] of what members say of their own uncertainty; None if one of them says nothing."""
    found = [sum(out[name] for name in _VARIANCES if name in out) for out in each]
    if not all(isinstance(value, Tensor) for value in found):
        return None
    return torch.stack(found).detach().double().cpu().numpy()  # type: ignore[arg-type]


def fused(fusion: Fusion, z: np.ndarray, variances: np.ndarray | None, score: np.ndarray | None) -> dict[str, np.ndarray]:
    from skyloom.uncertainty import expected_entropy, mutual_information

    member = fusion.slopes[:, None] * z + fusion.offsets[:, None]
    found = {"logit": fusion(z, variances, score), "members": z.T.copy()}
    return found | {"mutual_information": mutual_information(member), "expected_entropy": expected_entropy(member)}


# ---------------------------------------------------------------- workflow


def train(
    run: Run,
    fabric: Fabric,
    data: Data,
    task: Callable[..., Ensemble],
    optimizer: Callable[[Any], torch.optim.Optimizer],
    schedule: Any,
    trainer: Callable[..., Trainer],
    evaluation: Any = None,
    trackers: Any = None,
    threads: int | str = "auto",
    together: bool = False,
    seed: int = 0,
) -> dict[str, float]:
    """Train the members, fuse them on validation, calibrate, score the test split; ensemble.json compares rules and members.

    One after the other, each member is a run of its own in <run>/members/<name>, with its own seed, order and checkpoint, and a
    stopped ensemble goes on with the member it was at. `together` trains all on the same batches in one pass over the data.
    """
    torch.manual_seed(seed)
    if fabric.device.type == "cpu" and threads != "auto":
        torch.set_num_threads(int(threads))
    ensemble = task(about=data.about)
    if run.provenance:
        run.write_json("provenance.json", {**run.provenance, "data_fingerprint": data.about["fingerprint"]})
    parameters = sum(p.numel() for p in ensemble.parameters())
    run.update(parameters=parameters, synthetic=bool(data.about["synthetic"]), splits=data.sizes())
    loop = trainer(fabric=fabric)
    if together:
        loop.fit(ensemble, data, optimizer, schedule, run, record=trackers.log if trackers is not None else None)
        validation = _validated(ensemble, data, loop)
    else:
        for number, name in enumerate(ensemble.names):
            _train_member(run, ensemble.members[name], name, number, data, optimizer, schedule, trainer, fabric, seed)
        validation = _saved(run.directory, ensemble, data)
    report = _fit_fusion(ensemble, validation, numpy_generator(seed, "fusion"))
    metrics = _keep(run, ensemble, data, validation)
    tested = workflow.evaluate(run, fabric, data, ensemble, loop, evaluation, seed=seed)
    columns, _ = read_columns(run.directory / "predictions" / "test.parquet")
    run.write_json("ensemble.json", {**report, **compared(ensemble, validation, columns)})
    return {**{f"val/{name}": Estimate(value) for name, value in metrics.items()}, **tested}


def _train_member(
    run: Run, member: Any, name: str, number: int, data: Data, optimizer: Any, schedule: Any, trainer: Any, fabric: Fabric,
    seed: int,
) -> None:  # fmt: skip
    directory = run.directory / "members" / name
    if (directory / "config.yaml").exists():
        inner = Run.open(directory, run.writable)
    else:
        config = {
            "pkg": "lensfind",
            "experiment": f"{run.config.get('experiment')}: {name}",
            "synthetic": data.about["synthetic"],
        }
        inner = Run.create(run.directory, config, directory=directory)
    said(f"member {number + 1}: {name}")
    own = derive(seed, "member", number) % 2**31
    progress = trainer(fabric=fabric, seed=own).fit(member, data, optimizer, schedule, inner)
    inner.update(status="finished", best={"step": progress.best_step, "epoch": progress.best_epoch})


def _saved(directory: Path, ensemble: Ensemble, data: Data) -> dict[str, np.ndarray]:
    """Validation columns of all members, from the files that their runs wrote."""
    every = [read_columns(directory / "members" / name / "predictions" / "val.parquet")[0] for name in ensemble.names]
    if any(not np.array_equal(columns["labelled"], every[0]["labelled"]) for columns in every):
        raise DataError("the members' validation rows differ: their logits cannot be fused.")
    columns = {name: values for name, values in every[0].items() if name not in ("logit", "calibrated", *_VARIANCES)}
    columns["members"] = np.stack([member["logit"] for member in every], axis=1).astype(np.float64)
    spread = [sum(member[name] for name in _VARIANCES if name in member) for member in every]
    if all(isinstance(value, np.ndarray) for value in spread):
        columns["member_variances"] = np.stack(spread, axis=1)
    return columns | _with_score(ensemble, data)


def _validated(ensemble: Ensemble, data: Data, loop: Trainer) -> dict[str, np.ndarray]:
    predictions = loop.predict(ensemble, data.val, data.carry, "val", label="scoring val")
    return {name: value.numpy() for name, value in predictions.items()} | _with_score(ensemble, data)


def _with_score(ensemble: Ensemble, data: Data, step: int = 512) -> dict[str, np.ndarray]:
    if not ensemble.colour_score:
        return {}
    rows = [np.arange(start, min(start + step, len(data.val))) for start in range(0, len(data.val), step)]
    return {"score": np.concatenate([colour_agreement(data.val.__getitems__(part)["image"], data.about) for part in rows])}


def _fit_fusion(ensemble: Ensemble, validation: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, Any]:
    z, labelled = validation["members"].T.astype(np.float64), validation["labelled"]
    score, report = validation.get("score"), {}
    if score is not None:
        keep, gain, chance = worth_keeping(z, score, labelled, ensemble.prior, rng)
        report["colour_score"] = {"kept": keep, "gain": gain, "largest_gain_by_chance": chance}
        score = score if keep else None
    ensemble.take(fuse(ensemble.rule, z, labelled, ensemble.prior, score))
    return report


def _keep(run: Run, ensemble: Ensemble, data: Data, validation: dict[str, np.ndarray]) -> dict[str, float]:
    """Calibrate the fused logit, and save weights and validation predictions."""
    z = validation["members"].T.astype(np.float64)
    variances = validation["member_variances"].T if "member_variances" in validation else None
    logit = ensemble.fusion(z, variances, validation.get("score"))
    values = calibration(logit, validation["labelled"], ensemble.prior)
    ensemble.calibrate(values)
    columns = {**validation, "logit": logit, "calibrated": values["slope"] * logit + values["offset"]}
    metrics = ensemble.score({name: torch.tensor(v) for name, v in columns.items() if v.ndim == 1})
    write_columns(run.directory / "predictions" / "val.parquet", columns, data.about)
    run.write_json("calibration.json", {**values, "prior": ensemble.prior, "synthetic": bool(data.about["synthetic"])})
    run.checkpoints.mkdir(exist_ok=True)
    state = {"task": ensemble.state_dict(), "about": data.about, "step": 0, "epoch": 0, "metrics": metrics}
    checkpoints.save(state, run.checkpoints, "best")
    return metrics


def compared(ensemble: Ensemble, validation: Mapping[str, np.ndarray], test: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """AUROC of every member and every rule on the unlabeled test rows, and each rule less the member that validation says is
    best, with DeLong's paired interval; all from saved logits."""
    unlabeled = test["labelled"] == 0
    if "lens" not in test or Ranking(test["logit"][unlabeled], test["lens"][unlabeled] > 0).one_class:
        return {}
    lens = test["lens"][unlabeled] > 0
    z_val, z = validation["members"].T.astype(np.float64), test["members"][unlabeled].T.astype(np.float64)
    labelled = validation["labelled"]
    from skyloom.pu import auroc_pu

    chosen = int(np.argmax([auroc_pu(member, labelled, ensemble.prior) for member in z_val]))
    found: dict[str, Any] = {
        "members": {name: Ranking(member, lens).auroc for name, member in zip(ensemble.names, z, strict=True)},
        "best_member_on_validation": ensemble.names[chosen],
        "rules": {},
    }
    for rule in RULES:
        if rule == "random_effects":
            continue  # needs the variances of every member, which only some heads give
        logit = fuse(rule, z_val, labelled, ensemble.prior)(z)
        difference = delong(logit, z[chosen], lens)
        found["rules"][rule] = {"auroc": difference.first, "less_best_member": difference.difference.to_json()}
    used = delong(test["logit"][unlabeled].astype(np.float64), z[chosen], lens)
    found["used"] = {"rule": ensemble.rule, "auroc": used.first, "less_best_member": used.difference.to_json()}
    found["weights"] = dict(zip(ensemble.names, ensemble.fusion.weights.round(4).tolist(), strict=True))
    return found
