"""What a browser makes of a page: its elements in order, each with its attributes and its text."""

from html.parser import HTMLParser

_VOID = {"meta", "path"}
_CELLS = {"td", "th"}


class Page(HTMLParser):
    """A page whose elements are all closed, in order; anything else is an error."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self._open = [], []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "text": "", **{f"@{name}": value for name, value in attrs}}
        assert len(attrs) == len(dict(attrs))
        self.elements.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_startendtag(self, tag, attrs):
        assert tag in _VOID
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        assert self._open.pop()["tag"] == tag
        if tag in _CELLS:
            # A cell's text does not run into that of the next.
            self.handle_data(" ")

    def handle_data(self, data):
        for element in self._open:
            element["text"] += data

    def all(self, tag, **attributes):
        return [
            one
            for one in self.elements
            if one["tag"] == tag
            and all(one.get(f"@{name.rstrip('_')}") == value for name, value in attributes.items())
        ]

    def section(self, name):
        (found,) = self.all("section", id=name)
        return " ".join(found["text"].split())
