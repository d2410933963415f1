"""Sets of figures under the names that earlier notebooks and scripts gave them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from embeddings.figures import legacy, likeness, places
from embeddings.figures.pieces import About

__all__ = ["NAMES", "SETS", "Named", "named"]

Predictions = Mapping[str, np.ndarray]

_BY_PROPERTY = {
    "logm": "log_mass", "logsfr": "log_sfr", "ssfr": "log_ssfr", "dn4000": "dn4000", "gr_color": "g_minus_r",
    "ellipticity": "ellipticity", "kron_radius": "log_kron_radius", "concentration": "concentration", "asymmetry": "asymmetry",
    "smoothness": "smoothness", "gini": "gini", "sersic_index": "sersic_index",
}  # fmt: skip
_SHORT = ("logm", "logsfr", "ssfr", "dn4000", "gr_color")
_TRIPTYCHS = {
    "logM": "log_mass", "logSFR": "log_sfr", "Dn4000": "dn4000", "HaHb": "balmer_decrement", "sersic": "sersic_index",
    "concentration": "concentration", "spiral": "spiral_arms",
}  # fmt: skip

NAMES: dict[str, tuple[str, ...]] = {
    "aion": (
        "aion_embeddings_comparison_redshift",
        *(f"aion_embeddings_{name}" for name in (*_SHORT, "spectype", *list(_BY_PROPERTY)[5:])),
        "aion_cosine_similarity_analysis",
        "umap_grid", "cosine_histogram", "cosine_vs_redshift", "nearest_neighbour_agreement",
    ),
    "astropt": ("astropt_embeddings_redshift", *(f"astropt_embeddings_{name}" for name in (*_SHORT, "spectype"))),
    "scripts": (
        "umap_desi_embeddings_redshift", "umap_desi_embeddings_bins", "tsne_desi_embeddings_redshift",
        "density_desi_embeddings",
        "multimodal_embedding_analysis", "correlation_heatmap", "downstream_task_results",
    ),
    "comparison": (
        "model_comparison_redshift", *(f"model_comparison_{name}" for name in _SHORT),
        "model_comparison_correlations", "model_comparison_cosine_similarity",
    ),
    "three": (
        *(f"umap_{name}" for name in _TRIPTYCHS), "embedding_space_correlations", "model_comparison_three_correlations",
    ),
}  # fmt: skip
"""Every name of every set; one whose property no object has is left out when drawn."""

SETS = tuple(NAMES)

_AXES_MEAN_NOTHING = (
    "Axes of a map are arbitrary and those of different panels unrelated; how well a property is encoded is read from the "
    "probes."
)


@dataclass(frozen=True)
class Named:
    name: str
    title: str
    caption: str
    draw: Callable[..., Any]
    options: Mapping[str, Any]


def named(which: str, predictions: Predictions, about: About) -> list[Named]:
    """The figures of a set that the data allow, in the order of `NAMES`."""
    found = {one.name: one for one in _MAKERS[which](predictions, about)}
    return [found[name] for name in NAMES[which] if name in found]


def _aion(predictions: Predictions, about: About) -> list[Named]:
    model = _first_model(about, "aion")
    order = ("spectrum", "image", "fused")
    own = [f"{model}/{m}" for m in order if f"{model}/{m}" in about["embeddings"]]
    own = own or [n for n in about["embeddings"] if n.partition("/")[0] == model]
    found = [_map("aion_embeddings_comparison_redshift", "redshift", own, predictions)]
    found += [
        _map(f"aion_embeddings_{short}", name, own, predictions)
        for short, name in _BY_PROPERTY.items()
        if _has(predictions, name)
    ]
    found += _spectype("aion_embeddings_spectype", own, predictions)
    if any({row["first"].partition("/")[0], row["second"].partition("/")[0]} == {model} for row in about["cosines"]):
        caption = (
            "Cosine of two vectors of one object, raw (above) and about the mean, beside pairs of different "
            "objects (below). Raw values are high for any pair, because averaged vectors share a common part; "
            "AUC is the chance that the same object scores higher than another, 0.5 where modalities are not "
            "aligned. A low cosine does not mean complementary content."
        )
        for name in ("aion_cosine_similarity_analysis", "cosine_histogram"):
            found.append(Named(name, "Cosines between modalities", caption, likeness.cosine_histograms, {"model": model}))
        if _has(predictions, "redshift"):
            text = "Raw cosine between modalities against redshift, and its running mean over 5 percent of the objects."
            found.append(
                Named("cosine_vs_redshift", "Cosine with redshift", text, likeness.cosine_with_redshift, {"model": model})
            )
    found.append(_map("umap_grid", "redshift", None, predictions))
    if about["nearest"]:
        text = (
            "Share of objects whose nearest neighbour is the same in two embeddings; diamonds: share of ten "
            "neighbours in common; lines: what chance gives."
        )
        found.append(
            Named("nearest_neighbour_agreement", "Do embeddings agree on neighbours?", text, likeness.same_neighbours, {})
        )
    return found


def _astropt(predictions: Predictions, about: About) -> list[Named]:
    own = [_fullest(about, "astropt")]
    found = [_map("astropt_embeddings_redshift", "redshift", own, predictions)]
    found += [
        _map(f"astropt_embeddings_{s}", _BY_PROPERTY[s], own, predictions) for s in _SHORT if _has(predictions, _BY_PROPERTY[s])
    ]
    return found + _spectype("astropt_embeddings_spectype", own, predictions)


def _scripts(predictions: Predictions, about: About) -> list[Named]:
    one = _fullest(about, "astropt")
    with_one: dict[str, Any] = {"embedding": one}
    found = [_map("umap_desi_embeddings_redshift", "redshift", [one], predictions)]
    if _has(predictions, "redshift"):
        found.append(
            Named("umap_desi_embeddings_bins", "Map by bins of redshift", _AXES_MEAN_NOTHING, places.by_bins, with_one)
        )
    if f"map_tsne.{one}" in predictions:
        tsne = _map("tsne_desi_embeddings_redshift", "redshift", [one], predictions)
        found.append(Named(tsne.name, "t-SNE by redshift", tsne.caption, tsne.draw, {**tsne.options, "kind": "map_tsne"}))
    density = "Gaussian estimate of the density of points in the map. Density in a map is not density in the embedding."
    found.append(Named("density_desi_embeddings", "Density in the map", density, places.by_density, with_one))
    text = "Above: principal components, plain and by two properties. Below: length along them, and the two properties."
    found.append(Named("multimodal_embedding_analysis", "Principal components", text, legacy.components_panel, with_one))
    heat = (
        "Pearson correlation of principal components with properties. Components are axes of largest variance; a property that "
        "correlates with none of them may still be encoded well."
    )
    found.append(Named("correlation_heatmap", "Components and properties", heat, legacy.component_heatmap, with_one))
    scores = "Linear predictions on parts of the sky that the fit has not seen, penalty chosen within the training part."
    found.append(Named("downstream_task_results", "Held-out linear predictions", scores, legacy.downstream, with_one))
    return found


def _comparison(predictions: Predictions, about: About) -> list[Named]:
    two = list(about["one_each"])[:2]
    found = [_map("model_comparison_redshift", "redshift", two, predictions)]
    found += [
        _map(f"model_comparison_{s}", _BY_PROPERTY[s], two, predictions) for s in _SHORT if _has(predictions, _BY_PROPERTY[s])
    ]
    if about["axes"]:
        found.append(_axis_bars("model_comparison_correlations"))
    if any(row["first"].partition("/")[0] != row["second"].partition("/")[0] for row in about["cosines"]):
        text = (
            "Cosine of the vectors that two models give to one object, beside pairs of different objects. Axes "
            "of two models are unrelated, so that this measures nothing: the two histograms below agree. How "
            "alike models are is told by measures that do not depend on axes."
        )
        title = "Cosine between models (says nothing)"
        found.append(Named("model_comparison_cosine_similarity", title, text, likeness.cosine_histograms, {"model": None}))
    return found


def _three(predictions: Predictions, about: About) -> list[Named]:
    every = list(about["one_each"])[:3]
    limits: dict[str, Any] = {"percentiles": (1.0, 99.0)}
    found = []
    for short, name in _TRIPTYCHS.items():
        if _has(predictions, name):
            one = _map(f"umap_{short}", name, every, predictions)
            found.append(Named(one.name, one.title, one.caption, one.draw, {**one.options, **limits}))
    if about["dimensions"]:
        text = (
            "Largest rank correlation of each property with a single dimension of the embedding; black: what noise reaches. A "
            "rotation of the embedding changes this and nothing else, so that it ranks bases, not models."
        )
        title = "Correlations with single dimensions"
        found.append(Named("embedding_space_correlations", title, text, legacy.dimension_bars, {}))
    if about["axes"]:
        found.append(_axis_bars("model_comparison_three_correlations"))
    return found


_MAKERS: dict[str, Callable[[Predictions, About], list[Named]]] = {
    "aion": _aion, "astropt": _astropt, "scripts": _scripts, "comparison": _comparison, "three": _three,
}  # fmt: skip


def _map(name: str, wanted: str, embeddings: list[str] | None, predictions: Predictions) -> Named:
    values = predictions.get(f"truth.{wanted}", np.array([np.nan]))
    grey = f" Grey: no value ({int(np.isnan(values).sum())} objects)." if np.isnan(values).any() else ""
    options = {"name": wanted, "embeddings": embeddings}
    return Named(
        name,
        f"Maps by {wanted.replace('_', ' ')}",
        f"One colour scale for all panels.{grey} {_AXES_MEAN_NOTHING}",
        places.by_property,
        options,
    )


def _spectype(name: str, embeddings: list[str], predictions: Predictions) -> list[Named]:
    if "class.spectral type" not in predictions:
        return []
    caption = f"Spectral types with their counts. {_AXES_MEAN_NOTHING}"
    return [Named(name, "Maps by spectral type", caption, places.by_class, {"embeddings": embeddings})]


def _axis_bars(name: str) -> Named:
    text = (
        "Rank correlation of properties with the axes of each model's map (bars: the larger of two axes; "
        "triangles: the largest over all directions; black: noise). Maps are nonlinear and their axes "
        "arbitrary: this does not measure what is encoded."
    )
    return Named(name, "Correlations with axes of maps", text, legacy.axis_bars, {})


def _has(predictions: Predictions, name: str) -> bool:
    return f"truth.{name}" in predictions and bool(np.isfinite(predictions[f"truth.{name}"]).any())


def _first_model(about: About, like: str) -> str:
    models = [name.partition("/")[0] for name in about["embeddings"]]
    return next((m for m in models if like in m.lower()), models[0])


def _fullest(about: About, like: str) -> str:
    model = _first_model(about, like)
    return next(name for name in about["one_each"] if name.partition("/")[0] == model)
