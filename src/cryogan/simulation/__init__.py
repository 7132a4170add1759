"""Data sets with a known answer: structures to particle images, CTFs, noise and truth."""
