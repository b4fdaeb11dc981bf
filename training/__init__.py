"""`python -m training`: what makes the models. Stays out of the wheel."""
