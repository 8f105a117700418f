"""Files: checked before they are read, whole or not there after they are written."""
