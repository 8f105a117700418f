"""What is taken from a docstring."""

from mlxray.cli.docstrings import split_docstring

DOC = """One line.

    A paragraph of
    two lines with ``code``.

    Example::

        a = 1
        b = 2

    Args:
        text: The prompt.
        q, k: Two at
            once: really.
        top_k (int): How many.
        *rest: Others.
        none:
            On the next line.

    Returns:
        text: not an argument.
    """


def test_split_docstring():
    description, arguments = split_docstring(DOC)
    assert description == (
        "One line.\n\nA paragraph of two lines with `code`.\n\nExample::\n\n    a = 1\n    b = 2"
    )
    assert arguments == {
        "text": "The prompt.",
        "q": "Two at once: really.",
        "k": "Two at once: really.",
        "top_k": "How many.",
        "rest": "Others.",
        "none": "On the next line.",
    }


def test_nothing():
    assert split_docstring(None) == ("", {})
    assert split_docstring("\n    Args:\n        x: y.") == ("", {"x": "y."})
