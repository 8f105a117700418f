"""File formats of sparse dictionaries, one file for each, registered as a stranger's would be."""
