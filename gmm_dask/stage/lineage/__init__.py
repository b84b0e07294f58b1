"""Components through time: what they follow, their names and changes, and which versions count."""
