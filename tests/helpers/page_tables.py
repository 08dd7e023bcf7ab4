"""The tables of a rendered page as texts, read with nothing of the report's code."""

from html.parser import HTMLParser

from helpers.demo_results import MODEL


class Tables(HTMLParser):
    """Every table as caption -> rows of texts; small lines are joined to their cell by a bar."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.caption, self.ids = {}, None, []
        self._rows, self._cell = None, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if "id" in attrs:
            self.ids.append(attrs["id"])
        if tag == "table":
            self._rows = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th", "caption"):
            self._cell = []
        elif tag == "small" and self._cell is not None:
            self._cell.append("|")

    def handle_data(self, data):
        if self._cell is not None:
            self._cell.append(data)

    def handle_endtag(self, tag):
        if tag in ("td", "th", "caption"):
            text = "".join(self._cell).strip()
            self._cell = None
            if tag == "caption":
                self.caption = text
            else:
                self._rows[-1].append(text)
        elif tag == "table":
            self.tables[self.caption] = self._rows


def leaderboard(tables, percent, start="Leaderboard: "):
    """Method -> heading -> text, of the budget of the synthetic model that keeps `percent`."""
    name = next(
        n for n in tables if n.startswith(start) and f"{MODEL}, {100 - percent}\xa0% pruned" in n
    )
    head, *rows = tables[name]
    heads = [text.split("|")[0] for text in head]
    return {row[0].split("|")[0]: dict(zip(heads, row, strict=False)) for row in rows}


def first(text):
    """The figure of a cell, without its smaller lines."""
    return float(text.split("|")[0].replace("−", "-"))
