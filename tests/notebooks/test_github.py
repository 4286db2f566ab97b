"""The lessons on GitHub, which keeps some elements of an output's HTML and drops every style and script."""

import re
from html import escape
from html.parser import HTMLParser

import pytest
from stored import NAMES, Reader, outputs

# The elements and attributes that GitHub's published sanitizer lets through (`WHITELIST` in
# lib/html/pipeline/sanitization_filter.rb of the html-pipeline project, begun at GitHub, in the form of its
# version 2). What GitHub runs today is not published, and lets more through: this is the stricter reading.
ELEMENTS = re.findall(
    r"\w+",
    "h1 h2 h3 h4 h5 h6 h7 h8 br b i strong em a pre code img tt div ins del sup sub p ol ul table thead tbody"
    " tfoot blockquote dl dt dd kbd q samp var hr ruby rt rp li tr td th s strike summary details",
)
WITHOUT_CONTENT = {"script", "style"}
ATTRIBUTES = {"align", "colspan", "rowspan", "scope", "span", "start", "title", "type", "valign", "value"}
"""Those of its attributes for every element that say something in plain HTML."""

WRAPPERS = {"caption", "small", "span"}
"""Elements that only wrap text: dropped, they leave it behind. An input or a meter would leave nothing."""


class GitHub(HTMLParser):
    """Sanitize HTML as GitHub does, and note what was dropped for good."""

    def __init__(self, html):
        super().__init__()
        self.html = ""
        self.lost = []
        self._inside = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        if tag in WITHOUT_CONTENT:
            self._inside.append(tag)
        if tag in ELEMENTS:
            kept = [f' {name}="{escape(value or "")}"' for name, value in attributes if name in ATTRIBUTES]
            self.html += f"<{tag}{''.join(kept)}>"
        elif tag not in WRAPPERS:
            self.lost.append(tag)
        if tag == "img":
            self.lost.append("img: only pictures at a public address are shown")

    def handle_endtag(self, tag):
        if self._inside[-1:] == [tag]:
            self._inside.pop()
        if tag in ELEMENTS:
            self.html += f"</{tag}>"

    def handle_data(self, data):
        if not self._inside:
            self.html += escape(data)


def test_what_would_be_lost_is_noticed():
    faulty = GitHub("<p>on: <input type='checkbox' checked> <svg></svg></p><script>draw()</script>")
    assert faulty.lost == ["input", "svg", "script"]
    assert Reader(faulty.html).facts()["text"] == "on:"
    kept = GitHub('<p>a &lt; <span>b</span></p><th scope="row" style="color:red"><span>●</span></th>')
    assert kept.html == '<p>a &lt; b</p><th scope="row">●</th>'
    assert kept.lost == []


@pytest.mark.parametrize("name", NAMES)
def test_every_word_symbol_and_table_is_kept(name):
    found = [
        (out["data"], "".join(out["data"]["text/html"]))
        for out in outputs(name)
        if "data" in out and "text/html" in out["data"]
    ]
    assert found
    for data, html in found:
        kept = GitHub(html)
        assert kept.lost == []
        assert Reader(kept.html).facts() == Reader(html).facts()
        assert Reader(kept.html).text.strip(), "an output without a word"
        assert "".join(data["text/plain"]).strip()


@pytest.mark.parametrize("name", NAMES)
def test_no_output_needs_a_widget(name):
    kinds = {kind for output in outputs(name) for kind in output.get("data", ())}
    assert kinds <= {"text/plain", "text/html", "image/png"}
