"""How the dictionaries of the embedded model are made, and their card."""
