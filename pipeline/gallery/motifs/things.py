"""Drawings of smaller things: feast, apple, slime, fish skeleton, skull, flowers, chair, barrel, haystack."""

import numpy as np

from pipeline.gallery.paint.brush import Brush, Colour, tone
from pipeline.gallery.world import Look

# The points of a drawing read better in rows.
# fmt: off

WOOD: Colour = (132, 86, 50)
INK: Colour = (44, 34, 38)


def _flies(b: Brush, spots: list[tuple[float, float]]) -> None:
    """Flies close to the body of the drawing."""
    for x, y in spots:
        b.oval(x - 4, y - 2, 4.4, 2, (196, 208, 220), turn=30, volume=0)
        b.oval(x + 4, y - 2, 4.4, 2, (196, 208, 220), turn=-30, volume=0)
        b.oval(x, y, 1.8, 3, (34, 32, 38), volume=0)


def feast_table(b: Brush, look: Look) -> None:
    """A laid table; the cloth has the named colour."""
    cloth = tone(look.colour, 1.0)
    for x in (14, 86):
        b.poly([(x - 4, 99), (x - 4, 70), (x + 4, 70), (x + 4, 99)], WOOD)
    b.blob([(0, 56), (100, 56), (102, 66), (96, 88), (84, 80), (68, 90), (50, 82), (32, 90), (16, 80),
            (4, 88), (-2, 66)],
           cloth)
    b.oval(50, 56, 51, 9, tone(cloth, 1.18), volume=0.5)
    b.oval(28, 54, 15, 4.4, (216, 222, 232))
    b.blob([(17, 50), (20, 40), (30, 36), (40, 44), (40, 52), (28, 54)], (184, 106, 44))
    b.limb([(37, 44), (44, 37)], 5, 3, (206, 136, 66))
    b.oval(45, 36, 2.6, 2.6, (250, 240, 220))
    b.oval(72, 53, 15, 4.6, (168, 116, 70))
    for x, y, c in ((64, 48, "red"), (72, 45, "green"), (80, 48, "orange"), (68, 40, "golden"),
                    (76, 40, "purple")):
        b.oval(x, y, 5.4, 5.2, c)
    b.poly([(48, 57), (49, 42), (55, 42), (56, 57)], (60, 110, 70))
    b.poly([(50, 42), (50, 32), (54, 32), (54, 42)], (60, 110, 70))
    if look.state == "candlelit":
        for x in (10, 60, 91):
            b.poly([(x - 2.4, 54), (x - 2.4, 28), (x + 2.4, 28), (x + 2.4, 54)], (252, 246, 230))
            b.blob([(x - 3.4, 26), (x, 14), (x + 3.4, 26), (x, 29)], (255, 206, 80))
    elif look.state == "flowered":
        b.poly([(4, 56), (6, 40), (16, 40), (18, 56)], (90, 140, 200))
        for x, y, c in ((2, 32, "pink"), (11, 26, "white"), (20, 33, "red"), (8, 38, "yellow")):
            b.oval(x, y, 6, 6, c)
            b.dot(x, y, 2, (250, 220, 90))
    else:
        b.oval(10, 50, 10, 6, (222, 170, 96))
        b.blob([(82, 56), (84, 44), (92, 38), (99, 46), (98, 56)], (244, 206, 96))
        b.oval(60, 56, 5, 3.4, (200, 60, 70))


def rotten_apple(b: Brush, look: Look) -> None:
    """A spoilt apple in a puddle of its juice."""
    skin, dark = tone(look.colour, 0.95), tone("brown", 0.62)
    b.oval(50, 94, 46, 6, (150, 130, 60))
    b.blob([(50, 26), (68, 18), (90, 30), (94, 58), (80, 88), (58, 95), (50, 92), (40, 95), (18, 86), (6, 58),
            (12, 30),
            (34, 18)], skin)
    b.limb([(50, 28), (52, 14), (60, 4)], 5, 4, (84, 58, 36))
    b.blob([(56, 12), (72, 0), (90, 8), (74, 16)], (122, 116, 44))
    b.blob([(24, 44), (38, 36), (46, 52), (38, 68), (24, 64)], dark, volume=0.4)
    b.blob([(66, 66), (80, 60), (84, 74), (72, 84), (62, 78)], dark, volume=0.4)
    b.dabs([(30, 50), (36, 56), (73, 71), (77, 68), (31, 58)], 2.4, [(60, 40, 26)])
    if look.state == "bitten":
        bite = [(100 + 27 * np.cos(t), 44 + 24 * np.sin(t)) for t in np.linspace(1.75, 4.53, 9)]
        b.blob([*bite, (92, 22), (90, 44), (92, 66)], (226, 204, 130), volume=0.3)
        ring = zip(np.linspace(0, 6.28, 25), [23.0, 20.0] * 12 + [23.0], strict=True)
        b.cut([(100 + r * np.cos(t), 44 + 0.9 * r * np.sin(t)) for t, r in ring])
    if look.state == "mouldy":
        for x, y, r in ((36, 76, 13), (58, 40, 11), (82, 44, 9)):
            b.oval(x, y, r, r * 0.8, (206, 214, 196))
            b.dabs(np.array([x, y]) + b.rng.normal(0, r * 0.35, (7, 2)), 1.8, [(120, 150, 120),
                                                                               (90, 110, 96)])
    if look.state == "wormy":
        b.oval(64, 48, 7, 6, INK, volume=0)
        b.limb([(64, 48), (76, 38), (86, 44), (96, 32)], 8, 7, (196, 214, 96))
        b.dot(96, 30, 1.6, INK)
    _flies(b, [(8, 14), (24, 4), (34, 84)])


def slime(b: Brush, look: Look) -> None:
    """A heap of slime."""
    goo, pale, dark = tone(look.colour, 1.0), tone(look.colour, 1.45), tone(look.colour, 0.55)
    b.blob([(-4, 96), (8, 86), (22, 84), (78, 84), (94, 87), (105, 96), (80, 101), (20, 101)], tone(goo, 0.8))
    b.blob([(10, 94), (14, 70), (24, 64), (28, 40), (44, 26), (60, 34), (66, 50), (82, 58), (90, 80),
            (92, 94),
            (50, 98)], goo, volume=1.6)
    b.blob([(34, 44), (42, 34), (48, 38), (40, 50)], pale, volume=0)
    b.blob([(68, 60), (76, 62), (78, 70), (70, 68)], pale, volume=0)
    for x, y, r in ((24, 80, 5), (60, 78, 6), (44, 90, 4), (80, 88, 4)):
        b.oval(x, y, r, r * 0.9, dark, volume=0.4)
        b.dot(x - r * 0.3, y - r * 0.3, r * 0.3, pale)
    if look.state == "dripping":
        for x, y, end, wide in ((34, 34, 62, 7), (46, 28, 80, 8), (57, 36, 58, 7), (70, 56, 78, 6)):
            b.limb([(x, y), (x - 1, (y + end) / 2), (x, end)], wide * 0.6, wide, tone(goo, 0.78), volume=0.8)
            b.dot(x - 1, end, 1.6, pale)
        b.limb([(52, 32), (70, 26), (78, 40), (77, 52)], 15, 7, goo)
        b.limb([(34, 40), (18, 34), (12, 48), (13, 60)], 14, 7, goo)
        b.oval(77, 62, 3, 5, goo)
        b.oval(13, 70, 3, 5, goo)
    elif look.state == "staring":
        for x, y, r in ((42, 52, 10), (62, 58, 8)):
            b.oval(x, y, r, r, (250, 248, 226))
            b.dot(x + 1, y + 1, r * 0.5, (150, 30, 30))
            b.dot(x + 1, y + 1, r * 0.25, INK)
        b.line([(36, 72), (50, 77), (66, 72)], 2.6, dark, smooth=True)
    else:
        for x, y, r in ((30, 22, 9), (58, 14, 7), (76, 36, 8), (16, 48, 6), (44, 12, 4)):
            b.oval(x, y, r, r, pale)
            b.oval(x, y, r * 0.72, r * 0.72, goo, volume=0.3)
            b.dot(x - r * 0.35, y - r * 0.35, r * 0.22, (250, 252, 236))


def fish_skeleton(b: Brush, look: Look) -> None:
    """The bones of a fish on a plate of dirt."""
    bone, dark = tone(look.colour, 1.0 if look.colour != "grey" else 1.2), tone(look.colour, 0.6)
    b.oval(50, 76, 54, 20, (112, 104, 70))
    b.oval(48, 77, 46, 14, (136, 124, 74), volume=0.5)
    if look.state == "broken":
        b.limb([(24, 64), (52, 60)], 6, 5, bone)
        b.limb([(60, 70), (84, 66)], 5, 4, bone)
    else:
        b.limb([(24, 64), (56, 60), (86, 64)], 6, 4, bone)
    for k in range(6):
        x, half = 36 + 8 * k, 19 - 2.2 * k
        shift = 6 if look.state == "broken" and k > 3 else 0
        b.limb([(x - 4, 61 - half + shift), (x + 1, 62 + shift)], 2.6, 4, bone)
        b.limb([(x - 4, 63 + half + shift), (x + 1, 62 + shift)], 2.6, 4, bone)
    b.blob([(84, 64), (96, 46), (105, 42), (99, 62), (106, 82), (95, 80)], bone)
    b.line([(90, 62), (101, 50)], 1.4, dark)
    b.line([(90, 66), (101, 76)], 1.4, dark)
    b.blob([(-4, 66), (8, 50), (24, 44), (32, 62), (26, 82), (8, 80)], bone)
    b.oval(14, 60, 5.6, 5.6, (232, 226, 170), volume=0)
    b.line([(11, 57), (17, 63)], 1.8, INK)
    b.line([(17, 57), (11, 63)], 1.8, INK)
    b.line([(-3, 68), (8, 71), (14, 70)], 1.6, dark)
    if look.state == "stinking":
        for x in (34, 54, 74):
            b.limb([(x, 38), (x - 8, 24), (x + 6, 10), (x - 2, -6)], 8, 3, (150, 168, 70))
    if look.state == "fly-ridden":
        _flies(b, [(36, 36), (56, 30), (74, 38), (22, 28), (62, 74), (46, 16)])


def skull(b: Brush, look: Look) -> None:
    """A skull with black sockets."""
    bone, dark = tone(look.colour, 1.05), tone(look.colour, 0.6)
    if look.state == "horned":
        b.limb([(22, 26), (6, 18), (2, -6)], 15, 3, dark)
        b.limb([(78, 26), (94, 18), (98, -6)], 15, 3, dark)
    b.blob([(30, 70), (70, 70), (69, 90), (60, 99), (40, 99), (31, 90)], tone(bone, 0.9))
    b.blob([(50, 4), (76, 10), (92, 34), (88, 58), (74, 68), (70, 80), (30, 80), (26, 68), (12, 58), (8, 34),
            (24, 10)],
           bone, volume=1.4)
    for x in (33.0, 67.0):
        b.blob([(x - 11, 46), (x - 7, 37), (x + 7, 37), (x + 11, 46), (x + 6, 57), (x - 6, 57)], INK,
               volume=0)
        b.dot(x, 48, 2.4, (190, 40, 36))
    b.poly([(50, 56), (44, 70), (50, 67), (56, 70)], INK, volume=0)
    wide = 23 if look.state == "grinning" else 17
    b.blob([(50 - wide, 77), (50, 81), (50 + wide, 77), (50 + wide - 3, 89), (50, 93), (50 - wide + 3, 89)],
           INK, volume=0)
    for k in range(5):
        x = 50 + (k - 2) * wide * 0.4
        b.poly([(x - 3, 78), (x + 3, 78), (x + 2.6, 85), (x - 2.6, 85)], (250, 246, 226), volume=0)
        b.poly([(x - 2.6, 87), (x + 2.6, 87), (x + 2.6, 92), (x - 2.6, 92)], (236, 230, 206), volume=0)
    if look.state == "cracked":
        b.line([(60, 5), (54, 18), (63, 24), (57, 36)], 2.4, INK)
        b.line([(63, 24), (72, 26)], 1.8, INK)


def wilted_flowers(b: Brush, look: Look) -> None:
    """Hanging flower heads on limp stalks, petals below."""
    petal, stalk = tone(look.colour, 0.9), (112, 116, 56)
    heads = [(8.0, 52.0), (28.0, 28.0), (72.0, 30.0), (92.0, 54.0), (50.0, 20.0)]
    if look.state == "fallen":
        heads = [(2.0, 74.0), (16.0, 46.0), (84.0, 44.0), (98.0, 78.0), (62.0, 34.0)]
    for x, y in heads:
        top = (50 + (x - 50) * 0.7, y - 22)
        b.limb([(50 + (x - 50) * 0.06, 84), (50 + (x - 50) * 0.35, y + 6), top, (x, y - 6)], 4.4, 3.2, stalk)
    b.blob([(38, 66), (22, 62), (12, 72), (26, 74)], (132, 126, 60))
    b.blob([(60, 60), (76, 56), (88, 68), (74, 70)], (132, 126, 60))
    for x, y in heads:
        for dx, dy in ((-8, 8), (8, 8), (-4.5, 12), (4.5, 12), (0, 9)):
            b.oval(x + dx, y + dy, 5.4, 10.5, tone(petal, float(b.rng.uniform(0.78, 1.08))), turn=-dx * 2.6)
        b.blob([(x - 7, y + 4), (x - 5, y - 5), (x + 5, y - 5), (x + 7, y + 4), (x, y + 1)], (122, 104, 52))
    if look.state == "potted":
        b.poly([(30, 70), (70, 70), (64, 99), (36, 99)], (176, 104, 70))
        b.poly([(27, 66), (73, 66), (73, 75), (27, 75)], (192, 120, 84))
    else:
        b.limb([(44, 84), (56, 84)], 7, 7, (200, 190, 170))
        b.limb([(48, 86), (42, 98)], 8, 5, stalk)
        b.limb([(52, 86), (58, 98)], 8, 5, stalk)
    for x in (8, 22, 40, 66, 84, 94):
        b.oval(x + float(b.rng.uniform(-4, 4)), 96, 5.6, 2.8, tone(petal, 0.85), turn=float(b.rng.uniform(-30,
                                                                                                          30)))


def empty_chair(b: Brush, look: Look) -> None:
    """A wooden chair that nobody sits on."""
    wood, dark = tone(look.colour, 1.0), tone(look.colour, 0.62)
    top = -4.0 if look.state == "high-backed" else 14.0
    fallen = look.state == "toppled"

    def at(x: float, y: float) -> tuple[float, float]:
        return (104 - y, 26 + x * 0.72) if fallen else (x, y)

    for x0, x1, shade in ((34, 30, dark), (84, 88, dark)):
        b.poly([at(x0 - 4, 60), at(x0 + 4, 60), at(x1 + 4, 92), at(x1 - 4, 92)], shade)
    b.poly([at(16, top), at(26, top), at(26, 62), at(16, 62)], wood)
    b.poly([at(62, top - 2), at(72, top - 2), at(72, 58), at(62, 58)], wood)
    b.poly([at(14, top + 1), at(74, top - 2), at(74, top + 14), at(14, top + 16)], wood)
    for k in range(3 if top > 0 else 4):
        y = top + 22 + 13 * k
        if y < 56:
            b.poly([at(20, y), at(68, y - 1.5), at(68, y + 6), at(20, y + 7.5)], tone(wood, 0.85))
    b.poly([at(10, 66), at(22, 54), at(92, 54), at(84, 66)], tone(wood, 1.2))
    b.poly([at(10, 66), at(84, 66), at(84, 73), at(10, 73)], wood)
    b.poly([at(14, 72), at(23, 72), at(20, 100), at(12, 100)], wood)
    if look.state == "broken":
        b.poly([at(72, 72), at(81, 72), at(80, 82), at(73, 79)], wood)
        b.poly([(84, 100), (108, 92), (110, 98), (88, 104)], wood)
    else:
        b.poly([at(72, 72), at(82, 72), at(84, 100), at(75, 100)], wood)


def barrel(b: Brush, look: Look) -> None:
    """A cask with iron hoops."""
    wood = tone(look.colour, 1.0)
    half = 36.0 if look.state == "stout" else 28.0
    b.blob([(50 - half + 6, 14), (50 + half - 6, 14), (50 + half + 2, 40), (50 + half + 2, 64),
            (50 + half - 5, 97),
            (50, 100), (50 - half + 5, 97), (50 - half - 2, 64), (50 - half - 2, 40)], wood)
    for share in (-0.5, 0.0, 0.5):
        b.line([(50 + share * half, 18), (50 + share * half * 1.1, 56), (50 + share * half, 97)], 1.4,
               tone(wood, 0.7),
               smooth=True)
    for y in (30, 80):
        b.line([(50 - half, y), (50, y + 4), (50 + half, y)], 5, (84, 84, 92), smooth=True)
    b.oval(50, 15, half - 6, 6, tone(wood, 1.2))
    if look.state == "tapped":
        b.limb([(50, 60), (50, 68)], 7, 5, (206, 170, 80))
        b.dot(50, 76, 2.4, (160, 40, 60))


def haystack(b: Brush, look: Look) -> None:
    """A stack of hay."""
    hay = tone(look.colour, 0.95)
    top = {"pointed": [(50, 10), (66, 34)], "wide": [(40, 44), (62, 44)]}.get(look.state, [(44, 24),
                                                                                           (58, 24)])
    b.blob([(4, 98), (8, 76), (24, 50), top[0], top[1], (78, 52), (94, 76), (97, 98), (50, 101)], hay)
    for _ in range(46):
        x = float(b.rng.uniform(14, 86))
        y = float(b.rng.uniform(62, 92)) - (8 if 34 < x < 66 else 0)
        b.line([(x, y), (x + (x - 50) * 0.12, y + 9)], 1.3, tone(hay, float(b.rng.uniform(0.7, 1.35))))
