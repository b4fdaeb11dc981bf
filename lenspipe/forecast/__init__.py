"""What a survey will take, from a measured sample of it: `lenspipe plan`."""
