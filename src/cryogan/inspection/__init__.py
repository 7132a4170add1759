"""Looking at a particle set before a run: what is in it, what is odd, what to mend."""
