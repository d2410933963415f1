"""Muon bundles deep in ice from a primary cosmic ray, by conditional spline flows."""
