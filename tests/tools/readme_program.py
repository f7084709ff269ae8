"""The examples of a page of Markdown as one program.

    python -m tests.tools.readme_program > program.py    the README's, for type checkers
    mypy --strict program.py
    pyright program.py

Each statement stands on the same line as in the page. The line that a checker or a traceback names is the page's.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
# Numba's decorators have no types. That cannot be mended in an example.
HEAD = "# mypy: allow-untyped-decorators"


def program_of(page: str) -> str:
    """All python blocks of a page, each on its own lines; all other lines are empty."""
    lines, inside = [], False
    for line in page.splitlines():
        fence = line.startswith("```")
        lines.append(line if inside and not fence else "")
        if fence:
            inside = not inside and line == "```python"
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the README's program; the first line, which is the README's title, takes the settings for mypy."""
    sys.stdout.write(HEAD + program_of(README.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
