"""Pictures of mixtures on matplotlib axes: the report and MixtureDisplay draw with the same code.

Matplotlib is imported where something is drawn, and not before.
"""
