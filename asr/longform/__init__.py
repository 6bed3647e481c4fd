"""longform."""
