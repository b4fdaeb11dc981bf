"""The published catalogue and its candidates: made, and asked."""
