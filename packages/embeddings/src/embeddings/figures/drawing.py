"""All figures of a run, each with its title and caption."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embeddings.figures import knowledge, likeness, places
from embeddings.figures.named import SETS, named
from embeddings.figures.pieces import About, canvas, of
from skyloom.errors import ConfigError, nearest
from skyloom.plots import Figure, labelled

__all__ = ["draw"]


def draw(
    predictions: Mapping[str, np.ndarray],
    about: About,
    directory: Path,
    maps: int | Sequence[str] | None = None,
    percentiles: tuple[float, float] = (2.0, 98.0),
    sets: Sequence[str] = (),
    dpi: int = 160,
) -> list[Figure]:
    """All figures of a run.

    Arguments:
        maps: Properties that colour maps of every embedding, by name, or so many of them, or all where None.
        percentiles: Of a property, where its colours end.
        sets: Figures under the names of earlier notebooks besides: `aion`, `astropt`, `scripts`, `comparison`, `three`.
        dpi: Dots per inch.
    """
    for which in sets:
        if which not in SETS:
            raise ConfigError(f"sets: there is no set of figures {which!r}.{nearest(which, SETS)}")
    todo = [*_knowledge(about), *_likeness(about), *_places(predictions, about, maps, percentiles)]
    todo += [(n.name, n.title, n.caption, n.draw, n.options) for which in sets for n in named(which, predictions, about)]
    synthetic = " Synthetic data." if about["synthetic"] else ""
    drawn = []
    with canvas(dpi), labelled(bool(about["synthetic"])):
        for name, title, caption, function, options in todo:
            path = directory / f"{name}.png"
            function(predictions, about, path, **options)
            drawn.append(Figure(path, title, caption + synthetic))
    return drawn


Todo = list[tuple[str, str, str, Any, Mapping[str, Any]]]


def _knowledge(about: About) -> Todo:
    known = " Open marks: the best possible linear prediction, in closed form." if knowledge.has_known(about) else ""
    todo: Todo = []
    if about["probes"]:
        text = (
            "Coefficient of determination of held-out predictions of each property: linear (filled, on all "
            f"objects), and by other probes on fewer. {about['objects']} objects in {about['cells']} groups on "
            "the sky, whole groups held out; 95% intervals from resampling groups. Grey band: the most that "
            f"shuffled properties reach.{known}"
        )
        todo.append(("probes", "What is encoded", text, knowledge.probes, {}))
    if about["partial"]:
        text = (
            "What each embedding knows of a property beyond signal-to-noise ratios and quality flags: the "
            f"share of what they leave unexplained (blue), beside the plain coefficient of determination (grey).{known}"
        )
        todo.append(("partial_r2", "Beyond the quality of the observation", text, knowledge.partial, {}))
    if about["labels"]:
        text = (
            "Score of linear probes on objects held out, against the number of labelled objects; bands: range over "
            "draws of these."
        )
        todo.append(("learning_curves", "How many labels it takes", text, knowledge.labels, {}))
    if about["classes"]:
        text = (
            "Held-out logistic regression with classes weighted equally: confusion (share of each true class, "
            "and counts), macro-F1 with 95% intervals beside what shuffled classes give, and the silhouette."
        )
        todo.append(("class_separation", "Do classes stand apart?", text, knowledge.classes, {}))
    return todo


def _likeness(about: About) -> Todo:
    todo: Todo = []
    circles = " Open circles: closed form." if knowledge.has_known(about) else ""
    if about["differences"]:
        text = (
            "Difference of the linear probes' coefficients of determination on the objects that both models "
            f"have, with paired 95% intervals. Right of zero the first model knows more.{circles}"
        )
        todo.append(("model_differences", "Which model knows it better", text, likeness.differences, {}))
    for kind, name, title in (
        ("models", "model_similarity", "How alike the models are"),
        ("modalities", "modality_similarity", "How alike the modalities of a model are"),
    ):
        if of(about["similarities"], kind=kind):
            text = (
                "Likeness of two embeddings of the same objects by measures that do not depend on axes. Grey: "
                "mean and two standard deviations where the objects of one are shuffled; raw values grow with "
                f"the size of the vectors.{circles}"
            )
            todo.append((name, title, text, likeness.similarities, {"kind": kind}))
    for kind, name, title in (
        ("models", "joint_gain_models", "Do two models know more than the better one?"),
        ("modalities", "joint_gain_modalities", "Does a second modality add to the first?"),
    ):
        if of(about["joint"], kind=kind):
            text = (
                "Gain in held-out coefficient of determination of a linear probe on two embeddings side by "
                f"side over the better of the two, with paired 95% intervals. Zero: redundant.{circles}"
            )
            todo.append((name, title, text, likeness.joint, {"kind": kind}))
    if about["retrieval"]:
        text = (
            "Share of objects whose vector of one modality is among the k nearest of its vector of another: "
            "after a held-out linear map, and as the vectors are. Encoders that were not trained to align "
            "modalities are at chance without the map."
        )
        todo.append(("retrieval", "From one modality to another", text, likeness.retrieval, {}))
    return todo


def _places(
    predictions: Mapping[str, np.ndarray], about: About, maps: int | Sequence[str] | None, percentiles: tuple[float, float]
) -> Todo:
    every = [entry["name"] for entry in about["properties"]]
    mapped = every if maps is None else every[:maps] if isinstance(maps, int) else list(maps)
    judged = [row for row in about["maps"] if row["column"].startswith("map.")]
    quality = (
        f" Trustworthiness {min(r['trustworthiness'] for r in judged):.2f}–{max(r['trustworthiness'] for r in judged):.2f}, "
        f"continuity {min(r['continuity'] for r in judged):.2f}–{max(r['continuity'] for r in judged):.2f}."
        if judged
        else ""
    )
    todo: Todo = []
    for name in mapped or ([] if every else ["redshift"]):
        text = (
            f"Every embedding's map. Colours share one scale, from percentile {percentiles[0]:g} to "
            f"{percentiles[1]:g}. Grey: no value. Axes of different panels are unrelated; how well a property "
            f"is encoded is read from the probes.{quality}"
        )
        options = {"name": name, "percentiles": percentiles}
        todo.append((f"map_{name}", f"Maps by {name.replace('_', ' ')}", text, places.by_property, options))
    for method in ("isolation", "lof", "flow"):
        if any(key.startswith(f"outlier.{method}.") for key in predictions):
            word = {
                "isolation": "an isolation forest",
                "lof": "the local outlier factor",
                "flow": "a normalizing flow's density",
            }[method]
            text = (
                f"The strangest percent of the objects by {word}: of the embedding itself (crosses) and of the model's other "
                "modalities (plus signs)."
            )
            todo.append((f"outliers_{method}", f"Outliers by {word}", text, places.outliers, {"method": method}))
    return todo
