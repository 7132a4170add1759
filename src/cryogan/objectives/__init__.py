"""Objectives: ways to fit maps to particles. They share assumptions, not one another's code."""
