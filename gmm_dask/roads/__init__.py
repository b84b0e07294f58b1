"""The roads from rows to a fit: of one fit, of a grid of fits, of variational inference."""
