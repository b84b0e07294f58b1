"""The shell: the command line, what it prints, and how its process begins and ends."""
