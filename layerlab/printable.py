"""Makes any text safe to print on one line."""


def printable(text: str) -> str:
    r"""Make what cannot be seen visible: newline becomes ``\n``, a right-to-left mark ``\u200f``.

    Names come from the learner's model and may hold anything; unseen characters could reorder or break a
    line. The rule is Python's own for ``repr``.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
