"""What comes in: the listing of files, their columns, the plan, and the reading of rows."""
