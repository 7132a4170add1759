"""What is done to particle sets before a run: choosing particles, making their images smaller."""
