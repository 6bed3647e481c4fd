"""Speech recognition with deep bidirectional LSTMs and CTC."""

__version__ = "0.1.0"
