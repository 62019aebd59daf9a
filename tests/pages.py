"""A reader of HTML pages that the tests of pages share."""

import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """Tags that are open, sources and links, ids, and text of a page."""

    EMPTY = ("meta", "img", "input", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.ids, self.text, self.tags = [], [], [], "", set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.sources += [value for key, value in attributes if key in ("src", "href", "xlink:href", "action", "data")]
        self.ids += [value for key, value in attributes if key == "id"]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def whole_page(text, sections):
    """The page of a text, which must be well-formed, need nothing from outside and have the sections in order."""
    page = Page(text)
    assert page.open == []
    assert not {"script", "link", "iframe", "object", "form", "base"} & page.tags
    assert all(re.match(r"data:image/(png|jpeg);base64,|#\w+$", source) for source in page.sources)
    assert not re.search(r"https?:|@import|//[a-z]", re.sub(r"base64,[\w+/=]*", "", text))
    assert [place for place in page.ids if place in sections] == sections
    return page
