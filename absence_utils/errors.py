"""The one exception for bad input: it names the parameter and the remedy."""


class InputError(ValueError):
    """A parameter has a value that cannot be used.

    Args:
        parameter: name of the parameter, as the caller wrote it.
        problem: what is wrong with the value, without a full stop.
        remedy: what to do about it, as a sentence.
    """

    def __init__(self, parameter: str, problem: str, remedy: str = ""):
        self.parameter, self.problem, self.remedy = parameter, problem, remedy
        super().__init__(f"`{parameter}`: {problem}." + (f" {remedy}" if remedy else ""))
