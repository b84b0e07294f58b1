"""What a sample of rows tells of the columns; knows NumPy alone."""
