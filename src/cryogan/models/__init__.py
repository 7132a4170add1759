"""What is learnt: the volume and the critic."""
