"""Passes: a function of every chunk of rows, and the sum over them."""
