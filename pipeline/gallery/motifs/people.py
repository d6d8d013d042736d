"""Drawings of people: jester, embracing couple, rider, soldier, fist, ghost, lonely figure."""

from pipeline.gallery.paint.brush import Brush, Colour, tone
from pipeline.gallery.world import Look

# The points of a drawing read better in rows.
# fmt: off

SKIN: Colour = (238, 198, 162)
INK: Colour = (46, 36, 40)
GOLD: Colour = (240, 196, 70)


def _face(b: Brush, x: float, y: float, r: float, mouth: str = "smile") -> None:
    """Eyes, cheeks and a mouth on a head of radius r."""
    b.dot(x - 0.36 * r, y - 0.1 * r, 0.13 * r, INK)
    b.dot(x + 0.36 * r, y - 0.1 * r, 0.13 * r, INK)
    b.dot(x - 0.52 * r, y + 0.28 * r, 0.17 * r, (236, 150, 130))
    b.dot(x + 0.52 * r, y + 0.28 * r, 0.17 * r, (236, 150, 130))
    if mouth == "smile":
        arc = [(x - 0.4 * r, y + 0.34 * r), (x, y + 0.62 * r), (x + 0.4 * r, y + 0.34 * r)]
        b.line(arc, 0.14 * r, (150, 40, 40), smooth=True)
    elif mouth == "open":
        b.oval(x, y + 0.48 * r, 0.36 * r, 0.3 * r, (140, 30, 36), volume=0)
    else:
        b.line([(x - 0.3 * r, y + 0.5 * r), (x + 0.3 * r, y + 0.5 * r)], 0.12 * r, INK)


def jester(b: Brush, look: Look) -> None:
    """A fool with a three-horned cap and a motley suit."""
    suit, other = tone(look.colour, 1.0), tone("yellow", 1.1)
    leap = look.state == "leaping"
    feet = [(14.0, 88.0), (88.0, 84.0)] if leap else [(36.0, 97.0), (64.0, 97.0)]
    for (x, y), cloth in zip(feet, (suit, other), strict=True):
        b.limb([(50, 62), ((x + 50) / 2, 78), (x, y)], 15, 10, cloth)
        b.limb([(x, y), (x + (6 if x > 50 else -6), y), (x + (11 if x > 50 else -11), y - 6)], 9, 3, other)
    hands = [(12.0, 40.0), (88.0, 40.0)] if look.state != "laughing" else [(24.0, 66.0), (84.0, 34.0)]
    for (x, y), cloth in zip(hands, (other, suit), strict=True):
        b.limb([(50, 47), ((x + 50) / 2 + (x - 50) * 0.1, 54), (x, y)], 13, 9, cloth)
        b.oval(x, y, 5, 5, SKIN)
    b.blob([(35, 44), (50, 40), (65, 44), (66, 58), (72, 72), (50, 70), (28, 72), (34, 58)], suit)
    b.poly([(50, 42), (64, 45), (65, 58), (71, 71), (50, 69)], other)
    for x in (36, 50, 64):
        b.oval(x, 44 + abs(x - 50) * 0.1, 6.5, 5, (250, 246, 236), volume=0.6)
    b.oval(50, 30, 13.5, 13.5, SKIN)
    _face(b, 50, 32, 13, "open" if look.state == "laughing" else "smile")
    b.blob([(36, 27), (38, 16), (28, 6), (14, 12), (12, 22), (22, 17), (30, 22)], suit)
    b.blob([(64, 27), (62, 16), (72, 6), (86, 12), (88, 22), (78, 17), (70, 22)], other)
    b.blob([(36, 26), (42, 12), (50, 0), (58, 12), (64, 26), (50, 22)], tone(look.colour, 0.85))
    for x, y in ((12, 24), (88, 24), (50, 0)):
        b.oval(x, y, 4.6, 4.6, GOLD)
    if look.state == "juggling":
        for x, y, c in ((8, 30, "green"), (26, 2, "pink"), (76, -2, "blue"), (92, 30, "orange")):
            b.oval(x, y, 6, 6, c)


def embracing_couple(b: Brush, look: Look) -> None:
    """Two people in each other's arms: one in the named colour, one in cream."""
    near, far = tone(look.colour, 1.0), (246, 226, 196)
    low = 14 if look.state == "seated" else 0
    if look.state == "seated":
        b.oval(50, 95, 46, 7, (150, 106, 66))
        b.blob([(28, 78), (24, 96), (50, 99), (76, 96), (72, 78)], near)
    b.blob([(50, 36 + low), (70, 40 + low), (77, 62), (86, 99), (48, 99), (52, 62)], far)
    b.blob([(50, 36 + low), (30, 38 + low), (23, 60), (14, 99), (58, 99), (54, 66)], near)
    if look.state == "dancing":
        b.limb([(66, 44), (84, 40), (94, 24)], 10, 7, far)
        b.limb([(34, 44), (70, 36), (92, 22)], 9, 7, near)
        b.oval(94, 21, 5, 5, SKIN)
    else:
        b.limb([(70, 46 + low), (54, 60 + low), (36, 58 + low)], 11, 8, far)
        b.oval(34, 57 + low, 5, 4.5, SKIN)
        b.limb([(28, 44 + low), (42, 54 + low), (66, 50 + low)], 12, 9, tone(near, 0.88))
        b.oval(69, 49 + low, 5, 4.5, SKIN)
    b.blob([(52, 14 + low), (66, 8 + low), (80, 18 + low), (82, 44 + low), (72, 42 + low)], (168, 92, 44))
    b.oval(60, 24 + low, 11, 12.5, SKIN, turn=-12)
    b.blob([(52, 12 + low), (64, 9 + low), (73, 16 + low), (72, 26 + low), (62, 15 + low)], (168, 92, 44))
    b.oval(40, 22 + low, 11, 12.5, tone(SKIN, 0.93), turn=12)
    b.blob([(28, 24 + low), (28, 10 + low), (42, 6 + low), (51, 13 + low), (36, 16 + low)], (70, 48, 40))
    b.line([(44, 22 + low), (47, 23 + low)], 1.4, INK)
    b.line([(54, 23 + low), (57, 22 + low)], 1.4, INK)
    if look.state == "kissing":
        b.blob([(50, -1), (56, -9), (63, -3), (50, 11), (37, -3), (44, -9)], (222, 60, 80))


def rider(b: Brush, look: Look) -> None:
    """A rider on a running horse; the horse has the named colour."""
    coat, mane = tone(look.colour, 1.0), tone(look.colour, 0.5)
    rise = -8 if look.state == "leaping" else 0
    if look.state == "leaping":
        legs = [((30, 66), (14, 74), (2, 88)), ((34, 66), (24, 80), (10, 94)),
                ((70, 62), (88, 58), (82, 72)), ((72, 60), (92, 52), (94, 66))]
    else:
        legs = [((30, 66), (16, 78), (4, 96)), ((36, 66), (40, 84), (26, 98)),
                ((70, 66), (86, 74), (80, 92)), ((74, 64), (92, 70), (98, 86))]
    for number, leg in enumerate(legs):
        b.limb([(x, y + rise * (i == 0)) for i, (x, y) in enumerate(leg)], 10, 4.5,
               tone(coat, 0.8 if number % 2 else 0.95))
    b.limb([(26, 56 + rise), (10, 54 + rise), (0, 68 + rise)], 8, 3, mane)
    b.blob([(24, 56 + rise), (34, 50 + rise), (56, 52 + rise), (76, 48 + rise), (82, 60 + rise),
            (72, 70 + rise), (50, 72 + rise), (30, 70 + rise)], coat)
    b.limb([(74, 60 + rise), (82, 44 + rise), (90, 32 + rise)], 20, 12, coat)
    b.limb([(88, 30 + rise), (95, 36 + rise), (102, 42 + rise)], 12, 7, coat)
    b.poly([(84, 30 + rise), (86, 21 + rise), (90, 27 + rise)], coat)
    b.limb([(72, 50 + rise), (76, 38 + rise), (84, 26 + rise)], 9, 4, mane)
    b.dot(92, 32 + rise, 1.5, INK)
    b.limb([(52, 46 + rise), (60, 58 + rise), (56, 74 + rise)], 10, 7, (92, 62, 50))
    b.blob([(44, 24 + rise), (56, 22 + rise), (62, 34 + rise), (58, 50 + rise), (42, 50 + rise)],
           (206, 60, 52))
    b.limb([(46, 28 + rise), (28, 34 + rise), (12, 28 + rise)], 15, 4, (232, 170, 52))
    b.limb([(56, 30 + rise), (68, 38 + rise), (78, 40 + rise)], 7, 5, (206, 60, 52))
    b.oval(54, 14 + rise, 8, 9, SKIN)
    b.blob([(44, 11 + rise), (48, 2 + rise), (60, 1 + rise), (66, 9 + rise), (55, 8 + rise)], (60, 70, 120))
    if look.state == "banner-waving":
        b.line([(42, 52 + rise), (30, -8 + rise)], 2.4, (96, 66, 40))
        b.blob([(30, -8), (12, -4), (-4, -8), (-6, 8), (12, 12), (32, 10)], (250, 206, 64))


def soldier(b: Brush, look: Look) -> None:
    """A grim soldier with a raised sword."""
    coat, steel = tone(look.colour, 1.0), (196, 202, 212)
    wide = 14 if look.state == "charging" else 6
    b.limb([(44, 66), (44 - wide / 2, 80), (42 - wide, 96)], 14, 11, (78, 70, 76))
    b.limb([(56, 66), (57 + wide / 2, 80), (60 + wide, 96)], 14, 11, (66, 58, 64))
    for x in (40 - wide, 62 + wide):
        b.oval(x + 3, 96, 8, 4.5, INK)
    b.limb([(62, 42), (76, 38), (80, 22)], 13, 9, tone(coat, 0.9))
    b.poly([(77, 20), (80, -10), (84, -12), (86, -8), (84, 20)], steel)
    b.poly([(70, 18), (92, 18), (92, 23), (70, 23)], GOLD)
    b.oval(81, 22, 5.5, 5.5, SKIN)
    b.blob([(34, 38), (50, 34), (66, 38), (66, 56), (70, 76), (50, 79), (30, 76), (34, 56)], coat)
    b.poly([(32, 58), (68, 58), (69, 64), (31, 64)], (60, 44, 34))
    b.line([(38, 40), (62, 60)], 3.4, (246, 240, 226))
    b.oval(50, 26, 11.5, 12.5, tone(SKIN, 0.94))
    b.blob([(36, 24), (37, 10), (50, 3), (63, 10), (64, 24), (50, 18)], steel)
    b.blob([(48, 5), (40, -9), (52, -12), (66, -6), (54, -4)], tone(look.colour, 0.85))
    b.line([(41, 22), (48, 25)], 2, INK)
    b.line([(59, 22), (52, 25)], 2, INK)
    b.dot(45.5, 27, 1.5, INK)
    b.dot(54.5, 27, 1.5, INK)
    if look.state == "shouting":
        b.oval(50, 34, 5, 4, (120, 24, 30), volume=0)
    else:
        b.line([(45, 34), (50, 32), (55, 34)], 1.8, INK)
    if look.state == "shielded":
        b.blob([(14, 44), (31, 40), (48, 44), (46, 66), (31, 82), (16, 66)], steel)
        b.blob([(20, 49), (31, 46), (42, 49), (40, 64), (31, 75), (22, 64)], tone(look.colour, 0.8))
        b.oval(31, 60, 5, 5, GOLD)
    else:
        b.limb([(38, 42), (22, 52), (18, 62 if look.state == "charging" else 70)], 13, 9, tone(coat, 0.9))
        b.oval(18, 64 if look.state == "charging" else 72, 5.5, 5.5, SKIN)


def fist(b: Brush, look: Look) -> None:
    """A clenched fist thrust out of the earth."""
    skin = tone(look.colour, 1.06)
    dark = tone(look.colour, 0.6)
    b.oval(50, 97, 34, 6, (92, 72, 56))
    b.blob([(34, 99), (33, 74), (28, 58), (72, 58), (67, 74), (66, 99)], skin)
    if look.state == "torch-bearing":
        b.limb([(50, 66), (50, 30), (51, 12)], 9, 12, (110, 72, 40))
        b.blob([(38, 12), (34, -2), (44, -2), (50, -12), (58, 0), (68, -4), (64, 12), (50, 18)],
               (244, 120, 30))
        b.blob([(44, 11), (44, 3), (50, -3), (57, 4), (57, 12), (50, 15)], (252, 222, 90))
    b.blob([(20, 34), (30, 24), (70, 22), (82, 34), (82, 58), (70, 68), (32, 68), (18, 56)], skin)
    for number, x in enumerate((26, 41, 56, 71)):
        b.blob([(x - 8, 30), (x - 5, 20 - number % 2), (x + 5, 20 - number % 2), (x + 8, 30), (x + 7, 47),
                (x, 51), (x - 7, 47)], tone(skin, 1.04))
    b.limb([(20, 56), (40, 56), (62, 53)], 15, 13, tone(skin, 1.08))
    b.oval(62, 52, 5, 5, tone(skin, 1.3))
    b.line([(20, 46), (24, 50)], 2, dark)
    b.line([(34, 66), (46, 68), (58, 66)], 1.6, dark, smooth=True)
    if look.state == "chained":
        b.limb([(31, 80), (50, 84), (69, 80)], 13, 13, (96, 98, 106))
        for x, y, turn in ((78, 82, 0), (88, 89, 40), (94, 98, 60)):
            b.oval(x, y, 8, 4.5, (110, 112, 120), turn=turn)
            b.oval(x, y, 4, 1.6, (52, 50, 56), turn=turn, volume=0)
    for x in (22, 34, 64, 80):
        b.oval(x, 97, 9, 5, (108, 84, 62))


def ghost(b: Brush, look: Look) -> None:
    """A sheeted ghost with hollow eyes and a trailing hem."""
    sheet = tone(look.colour, 1.18 if look.colour != "white" else 1.0)
    if look.state == "pointing":
        b.limb([(60, 50), (82, 44), (102, 36)], 18, 5, sheet)
        b.limb([(40, 52), (26, 62), (20, 74)], 16, 7, sheet)
    else:
        b.limb([(62, 46), (84, 34), (92, 18)], 17, 8, sheet)
        b.limb([(38, 46), (16, 34), (8, 18)], 17, 8, sheet)
    hem = [(80, 96), (70, 88), (62, 100), (51, 90), (40, 100), (30, 88), (20, 97)]
    if look.state == "ragged":
        hem = [(86, 92), (78, 78), (70, 102), (60, 80), (50, 104), (41, 82), (30, 102), (24, 78), (12, 94)]
    b.blob([(50, 2), (68, 9), (74, 30), (76, 60), *hem, (24, 60), (26, 30), (32, 9)], sheet, volume=1.4)
    for x in (40, 60):
        b.oval(x, 28, 6, 9, (38, 32, 52), volume=0)
    if look.state == "wailing":
        b.oval(50, 50, 8, 12, (38, 32, 52), volume=0)
    else:
        b.oval(50, 46, 5, 5, (38, 32, 52), volume=0)
    for x in (36, 50, 63):
        b.line([(x, 66), (x - 2, 76), (x + 1, 86)], 1.6, tone(sheet, 0.82), smooth=True)


def lonely_figure(b: Brush, look: Look) -> None:
    """Someone in a long coat, head bowed, turned away."""
    coat, dark = tone(look.colour, 1.0), tone(look.colour, 0.65)
    if look.state == "kneeling":
        b.blob([(40, 44), (62, 42), (72, 62), (90, 86), (92, 99), (24, 99), (26, 82), (34, 62)], coat)
        b.limb([(46, 54), (34, 66), (32, 80)], 15, 9, dark)
        x, y = 40.0, 36.0
    elif look.state == "hunched":
        b.blob([(36, 36), (56, 22), (74, 34), (78, 62), (80, 98), (30, 98), (34, 66)], coat)
        b.limb([(52, 42), (38, 56), (34, 72)], 15, 9, dark)
        x, y = 34.0, 30.0
    else:
        b.blob([(36, 34), (50, 24), (66, 34), (72, 64), (80, 98), (22, 98), (30, 64)], coat)
        b.limb([(38, 44), (36, 60), (44, 70)], 14, 9, dark)
        x, y = 48.0, 20.0
    b.oval(x, y, 11, 12, tone(SKIN, 0.88))
    b.blob([(x - 5, y - 12), (x + 8, y - 15), (x + 16, y - 2), (x + 14, y + 14), (x + 2, y + 10),
            (x + 1, y - 4)],
           dark if look.state == "hooded" else (86, 72, 66))
    if look.state == "hooded":
        b.blob([(x - 11, y + 8), (x - 13, y - 8), (x, y - 18), (x + 16, y - 6), (x + 16, y + 14),
                (x + 2, y + 16),
                (x + 3, y - 4), (x - 4, y - 6)], tone(coat, 0.85))
    b.line([(x - 6, y + 1), (x - 2, y + 2)], 1.6, INK)
    b.line([(x - 5, y + 5), (x - 5.5, y + 11)], 1.8, (130, 176, 220))
    b.line([(60, 62), (62, 80), (66, 95)], 1.6, dark, smooth=True)
    b.line([(48, 74), (46, 86), (42, 96)], 1.6, dark, smooth=True)
