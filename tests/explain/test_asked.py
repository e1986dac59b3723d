"""The page of an answer: everything that a memory said is on it, as text, and nothing of it is markup."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recuerdo.errors import InputError
from recuerdo.explain.render.asked import asked_page, write_asked

DAY = 86_400.0
OURS = {
    "html", "head", "meta", "title", "style", "body", "header", "p", "h1", "h2", "b", "div", "span", "i", "main", "section",
    "ol", "li", "small", "mark", "dl", "dt", "dd", "footer", "code",
}  # fmt: skip
HOSTILE = """</p></li></style><script>alert(1)</script><img src="http://host/x" onerror=alert(1)>' " & &amp; <!-- ]]>"""


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.texts = set(), set(), []
        self.feed(html)
        self.text = "".join(self.texts)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.texts.append(data)

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")


def episode(id=0, weight=0.5, text="The library closes at six. Bob has the key.", sentence="Bob has the key.", **more):
    given = {"version": 1, "source": "town.md", "tags": [], "author": "", "time": 0.0, "bias": 0.0, "also": []}
    return {"id": id, "weight": weight, "text": text, "sentence": sentence, **given, **more}


def asked(*hops, question="Who has the key?", looked=2, addressed=2):
    covered = sum(one["weight"] for one in hops[-1]) if hops else 0.0
    return {"question": question, "hops": list(hops), "covered": covered, "looked": looked, "addressed": addressed}


def test_a_page_says_what_was_read():
    first = episode(12, 0.62, tags=["town"], author="Ada", bias=4.0, version=2, also=[3, 4], time=9 * DAY)
    html = asked_page(asked([first], [first, episode(7, 0.1), episode(8, 0.0004)]), memory="notes.db", now=12 * DAY)
    page = Page(html)
    for said in (
        "Who has the key?",
        "#12",
        "version 2",
        "town.md",
        "Ada",
        "1970-01-10, 3 days ago",
        "+4 by hand",
        "#3, #4",
    ):
        assert said in page.text
    assert "<mark>Bob has the key.</mark>" in html
    assert "At hop 2 these rows hold 72.0 % of the attention; 2 of 2 rows were looked at." in page.text
    assert "Hop 2 of 2: the question, moved by what hop 1 read" in page.text
    assert 'style="width:62.00%"' in html
    assert "28.0 % not shown" in page.text
    assert "< 0.1 %" in page.text
    assert "notes.db, asked 1970-01-1" in page.text
    assert page.tags <= OURS
    assert not re.search(r"https?://|@import|url\(", html)


def test_what_was_not_looked_at_is_told():
    told = Page(asked_page(asked([episode(weight=0.4)], looked=40, addressed=1200))).text
    assert "These rows hold at least 40.0 % of the attention; 40 of 1,200 rows were looked at." in told
    half = asked_page({**asked([episode(weight=0.8)], looked=40, addressed=1200), "covered": 0.4})
    assert "flex:0.4000" in half
    assert "60.0 % not shown" in half
    assert "Nothing is there to be read." in Page(asked_page(asked([]))).text


def test_lines_flow_and_short_ones_stay():
    text = "One line that is as long as the paper was wide, and it goes\non here.\n\nA short line\nand another."
    told = Page(asked_page(asked([episode(text=text, sentence="it goes\non here.")]))).text
    assert "wide, and it goes on here.\n\nA short line\nand another." in told


def test_ages_that_cannot_be():
    for time, told in (
        (12 * DAY, "just now"),
        (12 * DAY + 7200, "in 2 hours"),
        (1e300, ""),
        (-800 * DAY, "2 years ago"),
    ):
        assert told in Page(asked_page(asked([episode(time=time)]), now=12 * DAY)).text


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=60), where=st.sampled_from(["question", "text", "source", "author", "tag", "command"]))
def test_any_text_is_text(text, where):
    for said in (text, HOSTILE, f"{text}{HOSTILE}{text}"):
        one = episode(
            **({where: said} if where in ("text", "source", "author") else {}), tags=[said] if where == "tag" else []
        )
        one["sentence"] = one["text"][: len(one["text"]) // 2]
        html = asked_page(
            asked([one], **({where: said} if where == "question" else {})),
            command=said if where == "command" else "",
            now=0.0,
        )
        page = Page(html)
        assert page.tags <= OURS
        assert page.attributes <= {"lang", "charset", "http-equiv", "content", "name", "class", "dir", "style", "role", "aria-label"}  # fmt: skip
        seen = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "�", said)
        assert " ".join(seen.split()) in " ".join(page.text.split())
        html.encode()


def test_a_page_is_written(tmp_path):
    write_asked(asked([episode(text="\ud800 and more")]), tmp_path / "a.html")
    assert "� and more" in (tmp_path / "a.html").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="no/a.html cannot be written: No such file"):
        write_asked(asked([episode()]), tmp_path / "no/a.html")
