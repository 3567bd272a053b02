"""Tables of decisions with the effects and the words that a test wants."""

import pandas as pd

from absence_utils.insertion.decisions import NONE


def decisions(signed, passed=(), words=None, words_passed=None):
    """Rows of two readings for units 0, 1, ... with the given effects and decisions."""
    parts = []
    for reading, effects, said in (("signed", signed, words), ("passed on", passed, words_passed)):
        rows = {"unit": range(len(effects)), "reading": reading, "effect": effects}
        parts.append(pd.DataFrame(rows | {"decision": said or [NONE] * len(effects), "delta": 0.75}))
    return pd.concat(parts, ignore_index=True)
