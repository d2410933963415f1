"""Other simulators behind our scenes: `lenstronomy` renders them, `deeplenstronomy` reads and converts its configurations."""
