"""The search for the best admissible optimum, in place of a single start."""
