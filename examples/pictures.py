"""Draw scene.png, two-digits.png and cluttered.png, on which the trained models of the package can be tried.

python examples/pictures.py
"""

import random
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

from recuerdo.data.pictures import png
from recuerdo.data.scenes import scenes

HERE = Path(__file__).parent
FINE = 8  # strokes are drawn so many times as large, then made smaller
THREE = [(2, 3), (5, 1), (10, 1), (13, 4), (12, 8), (7, 10), (12, 11), (14, 15), (12, 19), (7, 20), (2, 18)]
SEVEN = [(1, 2), (14, 1), (12, 6), (8, 12), (6, 20)]

(HERE / "scene.png").write_bytes(png(scenes("test", 1, random.Random("c")).pixels[0]))

canvas = Image.new("L", (100 * FINE, 100 * FINE))
pen = ImageDraw.Draw(canvas)
for stroke, (left, top) in ((THREE, (16, 14)), (SEVEN, (64, 58))):
    pen.line([((left + x) * FINE, (top + y) * FINE) for x, y in stroke], 255, int(2.6 * FINE), "curve")
canvas.filter(ImageFilter.GaussianBlur(FINE / 2)).resize((100, 100)).save(HERE / "two-digits.png")

# A three in the lower right, and pieces of other strokes around it.
canvas = Image.new("L", (60 * FINE, 60 * FINE))
pen = ImageDraw.Draw(canvas)
pieces = [[(4, 8), (8, 4), (11, 6)], [(44, 4), (46, 9), (50, 10)], [(8, 44), (12, 50)], [(24, 20), (30, 18), (31, 23)]]
for stroke, (left, top) in ((THREE, (33, 32)), *((piece, (0, 0)) for piece in pieces)):
    pen.line([((left + x) * FINE, (top + y) * FINE) for x, y in stroke], 255, int(2.6 * FINE), "curve")
canvas.filter(ImageFilter.GaussianBlur(FINE / 2)).resize((60, 60)).save(HERE / "cluttered.png")
