"""Roads of other fits than those of `fitting_run`."""
