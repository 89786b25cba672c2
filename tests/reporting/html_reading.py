"""Reads a page as a browser would, far enough to tell what it refers to and whether its tags match."""

from html.parser import HTMLParser

_VOID = {"meta", "br", "link", "img", "input", "hr"}
_INLINE = {"span", "b", "code", "i", "a"}


class Page(HTMLParser):
    """What a page consists of.

    Attributes:
      tags: its start tags with their attributes, in their order.
      text: all its text outside of the style sheet.
      errors: tags that do not match, and ids that are not unique.
    """

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.errors: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        ids = [attributes["id"] for _, attributes in self.tags if "id" in attributes]
        self.errors += [f"id {name!r} is not unique" for name in set(ids) if ids.count(name) > 1]
        self.errors += [f"<{tag}> is not closed" for tag in self._open]
        self.ids = set(ids)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.text += "" if tag in _INLINE else " "
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self._open or self._open.pop() != tag:
            self.errors.append(f"</{tag}> at {self.getpos()} does not match")

    def handle_data(self, data):
        if "style" not in self._open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]
