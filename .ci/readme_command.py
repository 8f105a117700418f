"""Print the first command in README.md's shell blocks that holds the word given, say `pytest`.

What continuous integration runs is what README tells people to run.
"""

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def command(word: str, text: str) -> str:
    """The first shell command in Markdown `text` that holds `word`; `LookupError` without one."""
    for block in re.findall(r"^```(?:sh|bash|console)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            if re.search(rf"\b{re.escape(word)}\b", line) and not line.startswith("#"):
                return line.removeprefix("$ ").strip()
    raise LookupError(f"README.md shows no command with {word!r}")


if __name__ == "__main__":
    sys.stdout.write(command(sys.argv[1], README.read_text(encoding="utf-8")) + "\n")
