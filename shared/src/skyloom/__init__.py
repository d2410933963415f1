"""The core that the Skyloom packages share."""

__version__ = "0.1.0"
