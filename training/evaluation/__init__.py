"""What a model is worth: on its simulated test set, on real pixels, and how real the mocks are."""
