"""One pass of a model: watched, edited, traced, differentiated or finished early."""
