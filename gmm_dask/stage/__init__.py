"""The stage as plain functions: settings, plan, fit, label, publish, run."""
