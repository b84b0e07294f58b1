"""Benchmarks: they measure, side by side in one run, and assert nothing."""
