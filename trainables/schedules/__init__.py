"""Learning rate schedules, one file each: progress in, a factor of the learning rate out."""
