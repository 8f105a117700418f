"""What every picture needs: colours, fonts, labels, sizes."""
