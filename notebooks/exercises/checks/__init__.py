"""Exercises: notebooks with gaps, checks that recompute the truth, and solutions that fill the gaps.

`answers` holds what every check is made of, `notebooks` reads and fills exercises, `handed_in` judges what students
made of them, and each exercise has a module with its checks (`motion` for 01, `green_pixel` for 02, `digits` for 03,
...). A check never compares with a typed number where the number can be computed, and the classic wrong answers get a
sentence of their own.
"""

from absence_utils.exercises.answers import (
    Correct,
    WrongAnswer,
    answered,
    choose,
    compare,
    same_items,
    yes_or_no,
)
from absence_utils.exercises.notebooks import (
    all_exercises,
    find_exercise,
    insert_solutions,
    read_answers,
    read_solutions,
    tasks,
)

__all__ = [
    "WrongAnswer",
    "Correct",
    "all_exercises",
    "answered",
    "choose",
    "compare",
    "insert_solutions",
    "find_exercise",
    "read_answers",
    "read_solutions",
    "same_items",
    "tasks",
    "yes_or_no",
]
