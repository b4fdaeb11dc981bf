"""The stages of the line as units of work: what a worker does with one, and who hands them out."""
