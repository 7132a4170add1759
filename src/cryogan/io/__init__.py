"""Reading and writing the field's file formats; units are fixed here and nowhere else."""
