"""What a training consists of: steps, optimiser, schedule, average of weights."""
