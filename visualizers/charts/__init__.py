"""Charts that several pictures are made of."""
