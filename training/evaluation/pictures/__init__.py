"""Pictures of an evaluation: one file each, drawn from the report's own numbers."""
