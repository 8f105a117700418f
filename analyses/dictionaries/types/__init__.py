"""What a sparse dictionary is, however it was trained: its tensors and what it does with them."""
