"""Hydra finds this plugin by its place in the namespace package `hydra_plugins`, and imports it at every start."""
