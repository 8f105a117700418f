"""What probes learn from: labelled texts and arrays, checked and split."""
