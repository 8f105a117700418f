"""What comes in is checked, and what goes out: arguments, indices, numbers that are none."""
