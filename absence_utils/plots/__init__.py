"""Figures from arrays and tables, one file for each notebook's package.

Imports `errors` alone: no figure computes what it shows.
"""
