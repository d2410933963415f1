"""Strong gravitational lenses in survey images, by positive-unlabeled learning, calibrated."""
