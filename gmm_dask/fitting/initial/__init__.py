"""The mixture that EM begins with: groups of rows, values that a user gives, rows without noise."""
