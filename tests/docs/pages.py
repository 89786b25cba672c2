"""The documents for users, and the code in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.conftest import REPOSITORY

PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md")), "examples/README.md"]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A command may follow variables of its environment.
_COMMAND = re.compile(
    r"^([A-Z_]+=('[^']*'|\S+) )?(python|listwise|make|pip|tensorboard|docker|curl|gcloud|examples/\S+)( |$)"
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
      page: its path in the repository.
      line: the number of its first line.
      language: what follows the opening fence; "" for none.
      text: what stands between the fences.
    """

    page: str
    line: int
    language: str
    text: str

    def commands(self) -> list[str]:
        """The commands, each on one line and without comments. A listing of output or of files has none."""
        if self.language not in ("", "sh"):
            return []
        lines = re.sub(r"\\\n\s*", "", self.text).splitlines()
        return [re.sub(r"\s+# .*", "", line) for line in lines if _COMMAND.match(line)]


def text_of(page: str) -> str:
    return (REPOSITORY / page).read_text()


def blocks_of(page: str) -> Iterator[Block]:
    text = text_of(page)
    for match in _FENCE.finditer(text):
        yield Block(page, text.count("\n", 0, match.start()) + 2, match[1], match[2])


def without_code(page: str) -> str:
    """The text of a page without its fenced blocks and its code."""
    return re.sub(r"`[^`]*`", "", _FENCE.sub("", text_of(page)))
