"""Posteriors of a galaxy cluster's merger history by conditional invertible networks."""
