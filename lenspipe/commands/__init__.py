"""Groups of commands, and what all commands take and print."""
