"""Checks of the exercises beside this folder, one module for each (`motion` for 01, `green_pixel` for 02, ...).

A check recomputes the truth, says "Right" and what follows, or names the mistake. `answers` holds what every check is
made of, `pictures` what the notebooks draw. A notebook finds this package when it runs in its own folder.
"""
