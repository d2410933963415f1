"""Known cases with known answers: `make golden pkg=dodo_closure` computes them and says how far they are off."""

from typing import Any, NamedTuple

from torch import Tensor

from dodo_closure.box3d import asymptotic_state
from dodo_closure.fluxes import total_density
from dodo_closure.states import NSM, state

__all__ = ["CASES", "FINAL", "INTEGRALS", "PLACE", "Comparison", "compare", "golden"]

E = 4.89e32
CASES: dict[str, Tensor] = {
    "Fiducial": state((E, E, 0), ((0, 0, 1 / 3), (0, 0, -1 / 3), (0, 0, 0))),
    "90Degree": state((E, E, 0), ((0, 0, 1 / 3), (0, 1 / 3, 0), (0, 0, 0))),
    "TwoThirds": state((E, 2 * E / 3, 0), ((0, 0, 0), (0, 0, -1 / 3), (0, 0, 0))),
    **{name: state(*NSM[name]) for name in NSM},
}
INTEGRALS = {  # I_<, I_>, P on the larger side
    "Fiducial": (0.2454636843496, 0.2454636843496, 1 / 3),
    "90Degree": (0.1775703670565, 0.1775703670565, 1 / 3),
    "TwoThirds": (0.03860442409745, 0.2386044240975, 0.8921382835671),
    "NSM1": (0.01975445842029, 0.1126913464108, 0.883135312814),
    "NSM2": (0.0006679044933771, 0.04743260824068, 0.9906125832256),
    "NSM3": (0.007603506000307, 0.137787702341, 0.963211491925),
}
EQUAL = 1 / 6
FINAL: dict[str, dict[str, tuple[float, ...]]] = {  # species: (n, Fx, Fy, Fz) in units of N, as far as recorded
    "Fiducial": {"e": (EQUAL, 0, 0, 1 / 18), "x": (EQUAL, 0, 0, 1 / 18), "ebar": (EQUAL, 0, 0, -1 / 18)},
    "90Degree": {"e": (EQUAL, 0, 0, 1 / 18), "x": (EQUAL, 0, 0, 1 / 18), "ebar": (EQUAL, 0, 1 / 18, 0)},
    "TwoThirds": {
        "e": (0.459843660531, 0, 0, 0.0584653206472),
        "ebar": (0.259843660531, 0, 0, -0.0420155771028),
        "x": (0.0700781697345, 0, 0, -0.0292326603236),
        "xbar": (0.0700781697345, 0, 0, -0.0456588781153),
    },
    "NSM1": {
        "e": (0.204527145161, 0.0160347303378, 0.00828711263997, -0.0619298128939),
        "ebar": (0.297464033152, 0.017531808488, 0.00893499887109, -0.132586071327),
        "x": (0.124502205422, 0.00304684106582, 0.00839826152536, -0.0366605216157),
        "xbar": (0.124502205422, 0.00229830209371, 0.00807431799702, -0.0455619819642),
    },
    "NSM2": {
        "e": (0.200094961211, 0.00141884239209, -0.00332050062882, -0.040229235177),
        "x": (0.138261343458, -0.00620044227452, -0.00325402119585, -0.0328749240363),
        "ebar": (0.246859664959,),
    },
    "NSM3": {"e": (0.360356334204,), "ebar": (0.490540530544,), "x": (0.037275783813,)},
}
PLACE = {"e": (0, 0), "x": (0, 1), "ebar": (1, 0), "xbar": (1, 1)}


class Comparison(NamedTuple):
    """A case's largest deviation from its known answer, in units of N, over integrals and four-fluxes."""

    case: str
    integrals: float
    four_fluxes: float


def compare(case: str) -> Comparison:
    after, found = asymptotic_state(CASES[case])
    unit = after / total_density(CASES[case])
    got = (found.smaller.item(), found.larger.item(), found.survival.item())
    sides = max(abs(a - b) for a, b in zip(got, INTEGRALS[case], strict=True))
    worst = 0.0
    for species, values in FINAL[case].items():
        row = unit[PLACE[species]].tolist()
        worst = max(worst, *(abs(a - b) for a, b in zip([row[3], *row[:3]], values, strict=False)))
    return Comparison(case, sides, worst)


def golden(tolerance: float = 1e-9) -> dict[str, Any]:
    """Every case: final densities in units of N, and the largest deviation; raises if one exceeds `tolerance`."""
    lines: dict[str, Any] = {}
    for case in CASES:
        found = compare(case)
        after = asymptotic_state(CASES[case])[0] / total_density(CASES[case])
        n = {name: after[place][3].item() for name, place in PLACE.items()}
        shown = ", ".join(f"n_{name} {value:.12f}" for name, value in n.items())
        lines[case] = f"{shown}; off by {found.four_fluxes:.1e} (integrals {found.integrals:.1e})"
        if max(found.four_fluxes, found.integrals) > tolerance:
            raise RuntimeError(f"{case} is off by {max(found[1:]):.2e} of N, more than {tolerance:g}.")
    return lines
