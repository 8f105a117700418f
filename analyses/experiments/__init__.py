"""Published experiments, whole: from the prompts to the numbers that a paper would print."""
