"""What stands over and under each figure of a run: {name: (title, caption)}."""

__all__ = ["CAPTIONS", "EXPECTED"]

_SPECTRUM = "Test split: points are the events' own muons, with errors from the muons in each bin; steps are generated muons."
EXPECTED = " The line is the exact expectation for these primaries."

CAPTIONS = {
    "energy": ("Muon energy at depth", _SPECTRUM),
    "lateral": ("Lateral distribution", _SPECTRUM),
    "multiplicity": (
        "Multiplicity by primary energy",
        "How many muons arrive, if any do, in four ranges of primary energy; errors are Poisson.",
    ),
    "multiplicity_mass": (
        "Multiplicity by energy and mass",
        "How many muons arrive, if any do, by primary energy, for protons and iron; errors are Poisson.",
    ),
    "survival": (
        "Does any muon arrive?",
        "Probability that any muon arrives, against the primary's energy per nucleon over the energy a muon needs. An event "
        "without muons stands for all those like it that were left out.",
    ),
    "mean_multiplicity": (
        "Mean multiplicity by zenith and depth",
        "Mean number of muons of those bundles that arrive. The dotted line is the published fit to bundles of all primaries "
        "in sea water, which knows nothing of the spectrum used here.",
    ),
    "published": (
        "Beside published parametrisations",
        "Steep muons (cosine above 0.8) at 1.8 to 2.6 km, beside published shapes for sea water (10 to 20 percent).",
    ),
    "likelihood": (
        "Likelihood beside the floor and the ignorant answer",
        "Negative log-likelihood per muon in the coordinates (e, v), by primary energy per nucleon and by slant depth. Bands "
        "are one standard error over events. Shuffled: the flow is told another event's condition.",
    ),
    "energy_bins": (
        "Energy in bins of the condition",
        "Nine ranges of primary energy and depth; below each, test over generated with errors of both.",
    ),
    "lateral_bins": (
        "Distance in bins of the condition",
        "Nine ranges of primary energy and depth; below each, test over generated with errors of both.",
    ),
    "density": (
        "Energy and distance together",
        "Energy and distance together: observed, generated, and the logarithm of their ratio.",
    ),
    "spread": (
        "Higher energies are closer to the axis",
        "Mean distance from the axis by muon energy; errors from the muons in each bin.",
    ),
    "pit": (
        "Ranks among generated muons",
        "Rank of an observed muon among nine generated ones of its own condition: flat if the conditional density is right.",
    ),
    "two_sample": (
        "Can a classifier tell?",
        "Boosted trees that see condition, energy and distance; held-out halves of the showers.",
    ),
    "reweighting": (
        "From protons to iron by weights",
        "Muons generated for protons of these energies, weighted by the model's densities into those of iron.",
    ),
    "learning": (
        "Training between floor and plateau",
        "Nats per muon while training, between the exact density and the best one without a condition.",
    ),
    "plateau": (
        "The plateau, and its cause",
        "What an earlier training saw, made on purpose: muons torn from their primaries while batches were made. No capacity "
        "helps; whole batches do. Three models trained for this figure on new showers.",
    ),
}
