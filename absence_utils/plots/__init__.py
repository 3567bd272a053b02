"""Figures from arrays and tables, one file for each notebook's package.

Imports `errors` and `files` alone: no figure computes what it shows. `show_maps` is for looking at maps of one's own.
"""
