"""What foundation-model embeddings of galaxies know, and which model knows it better."""
