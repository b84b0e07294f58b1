"""How good the optimum is that a fit ends at: real data, and data whose truth is known."""
