import io

import pytest
from pages import Page
from PIL import Image

from fastseg.hierarchy import PASCAL_PART, Hierarchy
from fastseg.pages.charts import bar, heat, legend, table, ticks
from fastseg.pages.document import data_url, document, jpeg_url


@pytest.mark.parametrize(
    ("most", "expected"),
    [(500, [0, 100, 200, 300, 400, 500]), (1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0.0035, [0, 1e-3, 2e-3, 3e-3]),
     (130, [0, 20, 40, 60, 80, 100, 120])],
)  # fmt: skip
def test_ticks(most, expected):
    assert ticks(most) == pytest.approx(expected)


def test_a_table_can_be_read_and_scrolled_by_keyboard():
    text = table(["", "<b>a</b>"], [["one", "1"], ["two", "2"]], "kind", "what it <is>")
    page = Page(text)
    assert page.open == []
    assert page.text == "aone1two2"
    assert text.count('<th scope="row">') == 2
    assert 'tabindex="0" role="region" aria-label="what it &lt;is&gt;"' in text
    assert "<td></td><th" in text


def test_bars_heat_and_legend():
    assert "width:100.00%" in bar(1.7, "red", "<")
    assert "&lt;" in bar(1.7, "red", "<")
    text = heat(["<a>", "b"], [[0.5, 0], [1, 0.25]], [["5", "0"], ["9", "2"]], "label")
    assert [text.count(f"--share:{share}%") for share in (50, 0, 100, 25)] == [1, 1, 1, 1]
    assert Page(text).text == "<a>b<a>50b92"
    tree = Hierarchy(PASCAL_PART)
    assert Page(legend(tree, 1)).text.split() == ["upper", "body", "lower", "body"]


def test_a_document_holds_style_and_pictures():
    picture = Image.new("RGB", (4, 3), (200, 0, 0))
    url = jpeg_url(picture)
    page = Page(document("<title>", [f"<img src='{url}'>"], "p{color:red}"))
    assert page.open == []
    assert page.sources == [url]
    assert "<title>" in page.text
    assert "p{color:red}" in page.text
    assert "prefers-color-scheme: dark" in page.text
    file = io.BytesIO()
    picture.save(file, "PNG")
    assert data_url(file.getvalue(), "png").startswith("data:image/png;base64,iVBOR")
