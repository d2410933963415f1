"""Scenes to images: profiles in the Fourier plane (`fourier`, `shapes`), sources by rays (`rays`), PSF and sum (`image`)."""
