"""Drawings of animals: bear, monkey, goose, cat, bull, rat, snake, wolf, spider."""

from itertools import pairwise

import numpy as np

from pipeline.gallery.paint.brush import Brush, Colour, curve, tone
from pipeline.gallery.world import Look

# The points of a drawing read better in rows.
# fmt: off

INK: Colour = (40, 32, 36)


def _hat(b: Brush, x: float, y: float, r: float) -> None:
    """A little party hat with its foot at (x, y)."""
    b.poly([(x - r, y), (x, y - 2.4 * r), (x + r, y)], (222, 52, 78))
    b.line([(x - 0.6 * r, y - 0.8 * r), (x + 0.7 * r, y - 0.5 * r)], 0.3 * r, (250, 226, 80))
    b.oval(x, y - 2.4 * r, 0.5 * r, 0.5 * r, (250, 226, 80))


def dancing_bear(b: Brush, look: Look) -> None:
    """A bear on its hind legs with a ruff."""
    fur, pale = tone(look.colour, 1.0), tone(look.colour, 1.35)
    fat = 5.0 if look.state == "chubby" else 0.0
    b.limb([(40, 74), (30, 86), (28, 95)], 20, 15, fur)
    b.limb([(60, 74), (74, 80), (84, 86)], 20, 14, fur)
    b.oval(25, 95, 9, 5, tone(fur, 0.8))
    b.oval(87, 84, 6, 9, tone(fur, 0.8), turn=20)
    b.oval(50, 62, 23 + fat, 24 + fat * 0.5, fur)
    b.oval(50, 65, 13 + fat, 15 + fat * 0.4, pale, volume=0.5)
    up = (94.0, 18.0) if look.state == "waving" else (90.0, 44.0)
    b.limb([(66, 48), (82, 44), up], 15, 11, fur)
    b.limb([(34, 48), (18, 46), (8, 32)], 15, 11, fur)
    for x in (34, 42, 50, 58, 66):
        b.oval(x, 43 - 0.02 * (x - 50) ** 2 + 2, 6, 5, (214, 50, 60) if x % 4 == 2 else (250, 220, 90))
    for x in (36, 64):
        b.oval(x, 10, 7, 7, fur)
        b.oval(x, 11, 3.4, 3.4, pale, volume=0)
    b.oval(50, 24, 18, 17, fur)
    b.oval(50, 30, 9, 7.5, pale, volume=0.6)
    b.oval(50, 26.5, 3.6, 2.6, INK, volume=0)
    b.line([(44, 32), (50, 35), (56, 32)], 1.6, (150, 50, 50), smooth=True)
    for x in (42, 58):
        b.dot(x, 20, 2.6, (250, 248, 240))
        b.dot(x, 20, 1.7, (20, 18, 20))
    if look.state == "hatted":
        _hat(b, 50, 8, 8)


def monkey(b: Brush, look: Look) -> None:
    """A monkey on a striped drum; when tumbling, it stands on its hands."""
    fur, face = tone(look.colour, 1.0), (240, 204, 164)
    b.poly([(26, 78), (74, 78), (70, 99), (30, 99)], (206, 50, 56))
    for x in (36, 50, 64):
        b.line([(x - 5, 79), (x, 98), (x + 5, 79)], 2.4, (250, 222, 90))
    b.oval(50, 78, 25, 5, (246, 236, 214))

    def up(x: float, y: float) -> tuple[float, float]:
        return (x, 80 - y) if look.state == "tumbling" else (x, y)

    b.limb([up(62, 64), up(86, 68), up(94, 48), up(84, 38), up(78, 46)], 6, 4, fur)
    b.limb([up(42, 62), up(28, 66), up(34, 77)], 11, 8, fur)
    b.limb([up(58, 62), up(72, 66), up(66, 77)], 11, 8, fur)
    b.limb([up(42, 42), up(24, 46), up(14, 30)], 10, 7, fur)
    b.limb([up(58, 42), up(76, 40), up(86, 22)], 10, 7, fur)
    b.oval(*up(50, 54), 15, 18, fur)
    b.oval(*up(50, 57), 9, 12, tone(fur, 1.4), volume=0.5)
    for x in (33, 67):
        b.oval(*up(x, 22), 8, 8, fur)
        b.oval(*up(x, 22), 4.6, 4.6, face, volume=0)
    b.oval(*up(50, 22), 17, 16, fur)
    b.oval(*up(43.5, 20), 7.5, 8, face, volume=0)
    b.oval(*up(56.5, 20), 7.5, 8, face, volume=0)
    b.oval(*up(50, 28), 11, 8, face, volume=0.5)
    for x in (44, 56):
        b.dot(*up(x, 19), 2.4, (24, 20, 20))
    b.line([up(43, 28), up(50, 33 if look.state != "grinning" else 35), up(57, 28)], 2, (150, 50, 50),
           smooth=True)
    if look.state == "grinning":
        b.poly([up(44, 28), up(56, 28), up(50, 33)], (255, 252, 240), volume=0)
    if look.state == "hatted":
        _hat(b, 50, 7, 8)


def goose(b: Brush, look: Look) -> None:
    """A self-important goose with a bow tie."""
    down, bill = tone(look.colour, 1.12), (244, 150, 40)
    shift = 8.0 if look.state == "waddling" else 0.0
    for x in (40 - shift, 56 + shift):
        b.limb([(48 + (x - 48) * 0.4, 80), (x, 92)], 5, 4, bill)
        b.poly([(x - 4, 92), (x + 13, 98), (x - 7, 99)], bill)
    b.blob([(2, 46), (20, 56), (46, 50), (68, 56), (76, 70), (62, 86), (34, 88), (14, 74)], down)
    b.limb([(64, 66), (72, 44), (64, 26), (72, 16)], 20, 13, down)
    b.oval(74, 15, 12, 10, down)
    b.blob([(10, 56), (30, 58), (52, 60), (58, 70), (42, 78), (22, 72)], tone(down, 0.84))
    b.line([(24, 64), (40, 67), (52, 66)], 1.6, tone(down, 0.66), smooth=True)
    if look.state == "honking":
        b.poly([(83, 10), (103, 3), (88, 16)], bill)
        b.poly([(83, 19), (101, 27), (86, 15)], bill)
    else:
        b.poly([(83, 9), (102, 16), (84, 22)], bill)
    b.dot(77, 12, 2.4, (24, 20, 20))
    b.poly([(66, 38), (56, 32), (56, 46)], (206, 50, 64))
    b.poly([(66, 38), (80, 32), (80, 46)], (206, 50, 64))
    b.oval(67, 39, 3, 3, (150, 30, 44))
    if look.state == "hatted":
        b.oval(73, 5, 16, 3.4, (54, 46, 60))
        b.poly([(64, 4), (66, -11), (82, -11), (83, 4)], (54, 46, 60))
        b.poly([(64, 4), (64, -1), (83, -1), (83, 4)], (206, 50, 64))


def cat(b: Brush, look: Look) -> None:
    """A contented cat: curled up asleep on a cushion, or sitting."""
    fur, pale, dark = tone(look.colour, 1.0), tone(look.colour, 1.5), tone(look.colour, 0.62)
    if look.state == "sleeping":
        b.oval(50, 86, 48, 13, (176, 66, 84))
        b.oval(52, 66, 38, 25, fur)
        b.limb([(84, 74), (70, 90), (40, 90), (18, 82)], 12, 8, tone(fur, 0.9))
        x, y = 26.0, 66.0
    else:
        b.limb([(66, 88), (92, 90), (96, 66), (86, 54)], 9, 6, fur)
        b.blob([(50, 38), (66, 46), (76, 74), (74, 97), (26, 97), (24, 74), (34, 46)], fur)
        b.oval(50, 74, 10, 18, pale, volume=0.4)
        for foot in (38, 62):
            b.oval(foot, 95, 9, 5, pale)
        x, y = 50.0, 26.0
    for side in (-1, 1):
        b.poly([(x + side * 18, y + 2), (x + side * 17, y - 23), (x + side * 3, y - 13)], fur)
        b.poly([(x + side * 15, y - 5), (x + side * 15, y - 17), (x + side * 7, y - 11)], (240, 160, 160),
               volume=0)
    b.oval(x, y, 20, 17, fur)
    b.oval(x, y + 7, 9, 6.5, pale, volume=0.4)
    for side in (-1, 1):
        if look.state == "sleeping":
            b.line([(x + side * 12, y - 2), (x + side * 8, y + 1), (x + side * 4, y - 2)], 1.8, INK,
                   smooth=True)
        else:
            b.oval(x + side * 8, y - 2, 3.4, 4.2, (150, 200, 90), volume=0)
            b.oval(x + side * 8, y - 2, 1.4, 3.8, (20, 20, 20), volume=0)
        b.line([(x + side * 8, y + 6), (x + side * 24, y + 4)], 1, (250, 246, 236))
        b.line([(x + side * 8, y + 8), (x + side * 23, y + 10)], 1, (250, 246, 236))
    b.poly([(x - 2.6, y + 3), (x + 2.6, y + 3), (x, y + 6)], (226, 110, 120), volume=0)
    if look.state == "striped":
        for k in (-1, 0, 1):
            b.line([(x + 5 * k, y - 15), (x + 4 * k, y - 9)], 2.4, dark)
        for k in range(3):
            b.line([(30 - k, 60 + 11 * k), (40, 63 + 11 * k)], 3, dark)
            b.line([(70 + k, 60 + 11 * k), (60, 63 + 11 * k)], 3, dark)


def bull(b: Brush, look: Look) -> None:
    """A heavy bull, head low, horns forward."""
    hide, dark = tone(look.colour, 1.15), tone(look.colour, 0.7)
    if look.state == "charging":
        legs = [(20, 94, 2), (32, 98, 24), (62, 96, 78), (70, 96, 92)]
    elif look.state == "pawing":
        legs = [(18, 98, 16), (30, 98, 30), (60, 98, 60), (70, 88, 84)]
    else:
        legs = [(18, 98, 14), (30, 98, 28), (60, 98, 60), (70, 98, 72)]
    for number, (hip, low, foot) in enumerate(legs):
        shade = dark if number % 2 else tone(hide, 0.9)
        b.limb([(hip, 66), ((hip + foot) / 2, 82), (foot, low - 3)], 13, 7, shade)
        b.oval(foot + 1, low - 1, 5, 3, (30, 26, 28))
    b.limb([(10, 46), (-2, 52), (-4, 72)], 4, 3, dark)
    b.oval(-4, 75, 3, 5, dark)
    b.blob([(6, 44), (24, 36), (46, 34), (62, 22), (78, 32), (82, 54), (74, 72), (46, 74), (16, 70)], hide)
    b.blob([(72, 38), (86, 36), (98, 52), (96, 72), (88, 76), (76, 62)], tone(hide, 0.92))
    b.blob([(84, 66), (96, 64), (99, 73), (92, 79), (84, 76)], (196, 140, 128))
    b.dot(93, 72, 1.8, (60, 30, 30))
    b.limb([(76, 38), (70, 26), (80, 14)], 6, 2, (244, 234, 208))
    b.limb([(88, 38), (98, 34), (103, 20)], 6, 2, (244, 234, 208))
    b.dot(86, 50, 3, (250, 240, 220))
    b.dot(86.5, 50.5, 2, (200, 24, 20))
    b.line([(80, 44), (90, 48)], 2.2, INK)
    if look.state == "snorting":
        for k, (x, y) in enumerate(((98, 84), (104, 90), (90, 88))):
            b.oval(x, y, 7 - k, 5 - 0.6 * k, (226, 222, 220), volume=0.7)


def rat(b: Brush, look: Look) -> None:
    """A rat with a naked tail."""
    fur, pink = tone(look.colour, 0.95), (226, 150, 146)
    fat = 6.0 if look.state == "fat" else 0.0
    b.limb([(16, 84), (-4, 92), (8, 98), (34, 97), (56, 99)], 6, 2, pink)
    b.blob([(8, 78), (14, 54 - fat), (36, 40 - fat), (60, 46 - fat * 0.5), (76, 56), (78, 78), (60, 92),
            (24, 94)], fur)
    b.blob([(62, 50), (78, 48), (102, 72), (100, 78), (78, 82), (64, 74)], fur)
    for x, y in ((66, 44), (80, 44)):
        b.oval(x, y, 8.5, 9, tone(fur, 0.85))
        b.oval(x, y, 5.4, 6, pink, volume=0)
    b.dot(102, 74, 3, pink)
    b.dot(85, 62, 2.8, (20, 16, 16))
    b.dot(86, 61, 1, (240, 60, 40))
    for x in (28, 68):
        b.limb([(x, 86), (x + 8, 95), (x + 14, 97)], 7, 4, pink)
    b.poly([(91, 79), (96, 79), (95, 88), (91, 88)], (250, 244, 210), volume=0)
    for k in range(3):
        b.line([(92, 74), (84 - 2 * k, 84 + 4 * k)], 0.9, (230, 224, 216))
    if look.state == "mangy":
        for x, y, r in ((28, 62, 6), (44, 52, 4.5), (52, 74, 6)):
            b.oval(x, y, r, r * 0.7, (206, 140, 128), volume=0.3)
    if look.state == "gnawing":
        b.poly([(78, 84), (104, 82), (104, 99), (84, 99)], (238, 196, 70))
        for x, y in ((90, 89), (98, 93)):
            b.dot(x, y, 2, (196, 146, 40))


def snake(b: Brush, look: Look) -> None:
    """A thick snake with a forked tongue: coiled, or rising to strike."""
    skin, dark = tone(look.colour, 1.0), tone(look.colour, 0.55)
    if look.state == "coiled":
        b.limb([(96, 96), (60, 99), (18, 94), (14, 80), (50, 74), (86, 80), (84, 92)], 8, 17, skin)
        b.limb([(84, 90), (50, 92), (22, 80), (34, 64), (66, 62), (72, 70)], 17, 17, skin)
        path = [(72.0, 72.0), (50.0, 74.0), (34.0, 60.0), (50.0, 44.0), (62.0, 30.0), (56.0, 16.0)]
    elif look.state == "striking":
        path = [(0.0, 90.0), (16.0, 98.0), (34.0, 82.0), (56.0, 94.0), (74.0, 76.0), (50.0, 52.0),
                (64.0, 24.0)]
    else:
        path = [(6.0, 98.0), (30.0, 90.0), (62.0, 98.0), (84.0, 84.0), (58.0, 70.0), (26.0, 62.0),
                (40.0, 40.0),
                (66.0, 38.0), (64.0, 18.0)]
    start = 15.0 if look.state == "coiled" else 6.0
    b.limb(path, start, 16, skin)
    spine = curve(path, closed=False, steps=4)[3:-3:3]
    if look.state == "striped":
        for (x, y), (u, v) in pairwise(spine):
            n = np.array([-(v - y), u - x]) / max(np.hypot(u - x, v - y), 1) * 6
            b.line([(x - n[0], y - n[1]), (x + n[0], y + n[1])], 3.4, (250, 236, 150))
    else:
        b.dabs(spine, 2.8, [dark])
    x, y = path[-1]
    b.blob([(x - 9, y + 8), (x - 10, y - 6), (x + 4, y - 13), (x + 20, y - 4), (x + 24, y + 4),
            (x + 8, y + 11)], skin)
    b.line([(x + 23, y + 3), (x + 33, y + 5)], 1.8, (214, 30, 46))
    b.line([(x + 33, y + 5), (x + 39, y + 1)], 1.4, (214, 30, 46))
    b.line([(x + 33, y + 5), (x + 38, y + 10)], 1.4, (214, 30, 46))
    b.line([(x + 4, y + 6), (x + 22, y + 4)], 1.2, dark)
    b.oval(x + 6, y - 4, 4, 4, (252, 226, 80), volume=0)
    b.oval(x + 6.5, y - 4, 1.3, 3.6, (20, 16, 16), volume=0)


def wolf(b: Brush, look: Look) -> None:
    """A lean wolf, head thrown back or low."""
    fur, pale, dark = tone(look.colour, 0.95), tone(look.colour, 1.4), tone(look.colour, 0.6)
    for number, (hip, foot) in enumerate(((22, 14), (30, 32), (66, 62), (72, 78))):
        b.limb([(hip, 66), ((hip + foot) / 2 - 3, 82), (foot, 96)], 11, 5, dark if number % 2 == 0 else fur)
        b.oval(foot + 3, 97, 5, 2.6, dark)
    b.limb([(16, 58), (0, 64), (-8, 84)], 14, 5, tone(fur, 0.85))
    b.blob([(12, 54), (30, 47), (56, 46), (78, 40), (84, 56), (78, 72), (56, 70), (34, 66), (18, 68)], fur)
    b.blob([(66, 56), (80, 54), (80, 72), (68, 72)], pale, volume=0.5)
    if look.state == "howling":
        b.limb([(76, 54), (82, 38), (84, 28)], 24, 18, fur)
        b.poly([(76, 30), (86, 10), (100, -2), (102, 3), (96, 16), (92, 34)], fur)
        b.poly([(92, 22), (103, 12), (99, 22), (92, 30)], (150, 36, 40))
        b.poly([(76, 30), (64, 16), (80, 18)], dark)
        b.dot(86, 20, 1.8, (250, 210, 60))
        b.dot(100.5, -1, 2, INK)
        return
    low = 10.0 if look.state == "prowling" else 0.0
    b.limb([(74, 52), (84, 44 + low)], 26, 20, fur)
    b.poly([(76, 40 + low), (78, 22 + low), (86, 34 + low)], dark)
    b.poly([(86, 36 + low), (92, 20 + low), (95, 37 + low)], dark)
    b.blob([(76, 42 + low), (88, 34 + low), (98, 40 + low), (108, 52 + low), (102, 58 + low), (86, 60 + low)],
           fur)
    b.dot(94, 44 + low, 2.4, (252, 214, 50))
    b.dot(94.5, 44 + low, 1, INK)
    b.dot(108, 52 + low, 2.4, INK)
    if look.state == "snarling":
        b.poly([(88, 58), (107, 54), (100, 66), (90, 66)], (150, 30, 36))
        for x in (92, 97, 102):
            b.poly([(x - 2, 56), (x + 2, 56), (x, 62)], (252, 250, 236), volume=0)


def spider(b: Brush, look: Look) -> None:
    """A fat spider on thick legs; when dangling, on a thread."""
    shell, dark = tone(look.colour, 1.1), tone(look.colour, 0.7)
    if look.state == "dangling":
        b.line([(50, 40), (50, -10)], 1.4, (226, 226, 226))
    for side in (-1, 1):
        for k, (knee, foot) in enumerate((((30, 20), (44, 2)), ((36, 36), (52, 34)), ((36, 56), (52, 78)),
                                          ((28, 66), (40, 98)))):
            b.limb([(50 + side * 10, 48 + 4 * k), (50 + side * knee[0], knee[1]),
                    (50 + side * foot[0], foot[1])],
                   7.5, 3.6, dark if k % 2 else shell)
    b.oval(50, 66, 27, 25, shell)
    b.blob([(50, 50), (58, 60), (52, 68), (60, 80), (40, 80), (48, 68), (42, 60)], (226, 60, 40), volume=0.3)
    b.oval(50, 38, 17, 14, dark)
    for x, y, r in ((44, 36, 3.6), (56, 36, 3.6), (38, 32, 2.2), (62, 32, 2.2)):
        b.dot(x, y, r, (252, 226, 80))
        b.dot(x, y + 0.4, r * 0.5, (20, 16, 16))
    b.limb([(46, 27), (43, 18), (47, 15)], 4, 2, (230, 220, 200))
    b.limb([(54, 27), (57, 18), (53, 15)], 4, 2, (230, 220, 200))
    if look.state == "hairy":
        angles = b.rng.uniform(0, 2 * np.pi, 40)
        for a in angles:
            x, y = 50 + 26 * np.cos(a), 66 + 24 * np.sin(a)
            b.line([(x, y), (50 + 32 * np.cos(a), 66 + 30 * np.sin(a))], 1.2, dark)
