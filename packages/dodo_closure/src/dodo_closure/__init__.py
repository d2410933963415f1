"""The outcome of the neutrino fast-flavour instability: Box3D plus a learned residual."""
