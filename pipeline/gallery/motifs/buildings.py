"""Drawings of what people build, from cathedral to signpost."""

from pipeline.gallery.paint.brush import Brush, Colour, Point, tone
from pipeline.gallery.world import Look

# The points of a drawing read better in rows.
# fmt: off

WOOD: Colour = (140, 96, 58)
DARK: Colour = (54, 44, 52)
LAMP: Colour = (255, 224, 120)


def _bricks(b: Brush, area: tuple[float, float, float, float], colour: Colour, count: int) -> None:
    """Some stones of a wall (left, top, right, bottom), in darker paint."""
    left, top, right, bottom = area
    for _ in range(count):
        x, y = b.rng.uniform(left, right - 7), b.rng.uniform(top, bottom - 3)
        b.line([(x, y), (x + 5, y)], 2.2, tone(colour, float(b.rng.uniform(0.72, 0.9))))


def _arch(b: Brush, at: Point, width: float, height: float, colour: Colour) -> None:
    """A round-arched opening that stands at a point."""
    x, foot = at
    r = width / 2
    top = foot - height
    b.poly([(x - r, foot), (x - r, top + r), (x - 0.7 * r, top + 0.3 * r), (x, top),
            (x + 0.7 * r, top + 0.3 * r),
            (x + r, top + r), (x + r, foot)], colour, volume=0)


def house(b: Brush, look: Look) -> None:
    """A cottage with a lit window; the walls have the named colour."""
    wall = tone(look.colour, 1.0)
    roof = (120, 68, 60) if look.colour not in ("red", "orange") else (74, 82, 104)
    if look.state == "tall":
        left, right, eaves, ridge = 24.0, 76.0, 34.0, 4.0
    else:
        left, right, eaves, ridge = 10.0, 90.0, 54.0, 24.0
    lean = 11.0 if look.state == "crooked" else 0.0

    def at(x: float, y: float) -> Point:
        return x + lean * (99 - y) / 60, y

    span = right - left
    b.poly([at(right - 0.3 * span, eaves), at(right - 0.3 * span, ridge - 8), at(right - 0.14 * span,
                                                                                 ridge - 8),
            at(right - 0.14 * span, eaves)], (150, 84, 70))
    b.poly([at(left, 99), at(left, eaves), at((left + right) / 2, ridge + 8), at(right, eaves), at(right,
                                                                                                   99)], wall)
    b.poly([at(left - 9, eaves + 5), at(50 - 0.16 * span, ridge), at(50 + 0.16 * span, ridge), at(right + 9,
                                                                                                  eaves + 5)],
           roof)
    for k in range(3):
        y = ridge + (eaves + 5 - ridge) * (k + 0.7) / 3.2
        b.line([at(left + 12 - 4 * k, y), at(right - 12 + 4 * k, y)], 1.4, tone(roof, 0.75))
    b.poly([at(44, 99), at(44, 74), at(58, 74), at(58, 99)], (96, 62, 46))
    b.dot(*at(55, 87), 1.4, LAMP)
    rows = (42.0, 64.0) if look.state == "tall" else (64.0,)
    for y in rows:
        for x in (left + 0.2 * span, right - 0.2 * span):
            b.poly([at(x - 7.5, y), at(x + 7.5, y), at(x + 7.5, y + 15), at(x - 7.5, y + 15)],
                   (250, 246, 232), volume=0)
            b.poly([at(x - 5.5, y + 2), at(x + 5.5, y + 2), at(x + 5.5, y + 13), at(x - 5.5, y + 13)], LAMP,
                   volume=0)
            b.line([at(x, y + 2), at(x, y + 13)], 1.4, (250, 246, 232))
    if look.state == "snug":
        for x in (left + 4, right - 4, left + 18, right - 18):
            b.oval(x, 94, 9, 7, (74, 140, 66))
            b.dabs([(x - 3, 92), (x + 3, 95), (x, 90)], 1.8, ["pink", "white", "red"])


def cathedral(b: Brush, look: Look) -> None:
    """A great church with a rose window."""
    stone, dark = tone(look.colour, 0.98), tone(look.colour, 0.66)
    roof = (92, 104, 140)
    b.poly([(14, 99), (14, 56), (86, 56), (86, 99)], tone(stone, 0.9))
    if look.state == "domed":
        b.poly([(34, 52), (34, 40), (66, 40), (66, 52)], stone)
        b.blob([(32, 41), (33, 24), (50, 8), (67, 24), (68, 41), (50, 43)], roof)
        b.line([(50, 10), (50, -6)], 2, DARK)
        b.line([(46, -1), (54, -1)], 2, DARK)
        towers: tuple[tuple[float, float], ...] = ((16.0, 48.0), (84.0, 48.0))
    elif look.state == "twin-spired":
        towers = ((24.0, 30.0), (76.0, 30.0))
    else:
        b.poly([(37, 60), (37, 24), (50, -8), (63, 24), (63, 60)], stone)
        b.poly([(35, 25), (50, -12), (65, 25)], roof)
        towers = ((16.0, 54.0), (84.0, 54.0))
    for x, top in towers:
        b.poly([(x - 11, 99), (x - 11, top), (x + 11, top), (x + 11, 99)], stone)
        b.poly([(x - 13, top + 1), (x, top - 34), (x + 13, top + 1)], roof)
        b.line([(x, top - 32), (x, top - 40)], 1.6, DARK)
        for y in range(int(top) + 18, 92, 22):
            _arch(b, (x, y + 6), 8, 16, DARK)
    b.poly([(30, 62), (50, 44), (70, 62), (70, 99), (30, 99)], stone)
    b.oval(50, 64, 9.5, 9.5, (60, 76, 150), volume=0)
    for x, y in ((50, 58), (56, 64), (50, 70), (44, 64)):
        b.dot(x, y, 2.6, (230, 80, 80))
    b.dot(50, 64, 2.4, LAMP)
    _arch(b, (50, 99), 18, 22, dark)
    _arch(b, (50, 99), 12, 17, (84, 50, 42))
    _bricks(b, (14, 62, 86, 98), stone, 14)


def burning_tower(b: Brush, look: Look) -> None:
    """A stone tower in flames."""
    stone = tone(look.colour, 0.92)
    lean = 14.0 if look.state == "leaning" else 0.0
    top = 26.0 if look.state == "tall" else 34.0

    def at(x: float, y: float) -> Point:
        return x + lean * (99 - y) / 70 - lean / 2, y

    if look.state == "smoking":
        for x, y, r in ((66.0, 10.0, 15), (82.0, -2.0, 13), (44.0, 6.0, 13)):
            b.oval(x, y, r, r * 0.8, (84, 78, 82))
    flame = [(28, 40), (20, 22), (30, 24), (32, 4), (42, 14), (52, -8), (60, 12), (70, 0), (70, 20), (82, 18),
             (74, 42)]
    b.blob([at(x, y) for x, y in flame], (236, 84, 26))
    inner = [(36, 42), (34, 26), (42, 26), (52, 8), (60, 26), (68, 20), (66, 42)]
    b.blob([at(x, y) for x, y in inner], (252, 196, 60))
    b.poly([at(28, 99), at(32, top + 8), at(70, top + 8), at(74, 99)], stone)
    teeth: list[Point] = []
    for k in range(4):
        x = 27 + 12.6 * k
        teeth += [at(x, top), at(x + 7.4, top), at(x + 7.4, top + 7), at(x + 12, top + 7)]
    b.poly([at(27, top + 14), *teeth[:-1], at(74, top + 14)], stone)
    _bricks(b, (32, top + 18, 70, 97), stone, 16)
    for x, y in ((42.0, 56.0), (60.0, 66.0), (48.0, 82.0)):
        _arch(b, at(x, y + 4), 11, 17, (70, 28, 24))
        b.blob([at(x - 6, y + 2), at(x - 4, y - 8), at(x, y - 20), at(x + 5, y - 8), at(x + 6, y + 2)],
               (240, 110, 30))
        b.blob([at(x - 3, y + 1), at(x, y - 9), at(x + 3, y + 1)], (254, 220, 100), volume=0)
    for x in (24.0, 40.0, 62.0, 78.0):
        b.blob([(x - 9, 99), (x - 6, 90), (x, 80), (x + 6, 90), (x + 9, 99)], (244, 130, 34))


def ruin(b: Brush, look: Look) -> None:
    """A broken nave: columns, one standing arch, fallen drums."""
    stone, dark = tone(look.colour, 1.02), tone(look.colour, 0.62)
    gaps = ((8.0, 30.0), (26.0, 22.0), (56.0, 20.0), (82.0, 40.0))
    b.poly([(2, 99), (2, 90), (98, 90), (98, 99)], tone(stone, 0.85))
    if look.state != "roofless":
        b.poly([(20, 26), (22, 8), (34, 10), (40, 4), (56, 8), (70, 6), (72, 26)], stone)
    for x, top in gaps:
        b.poly([(x - 7, 92), (x - 6, top), (x - 1, top - 4), (x + 3, top + 2), (x + 6, top - 1), (x + 7, 92)],
               stone)
        for dx in (-3, 2):
            b.line([(x + dx, top + 5), (x + dx, 90)], 1.3, dark)
        b.poly([(x - 9, 92), (x - 9, 87), (x + 9, 87), (x + 9, 92)], tone(stone, 1.15))
    b.poly([(26, 44), (26, 24), (56, 24), (56, 44), (52, 34), (41, 29), (30, 34)], tone(stone, 0.92))
    b.oval(68, 90, 9, 8, stone)
    b.oval(68, 90, 4, 3.6, dark, volume=0)
    b.poly([(88, 99), (90, 86), (104, 90), (106, 99)], stone)
    if look.state == "crumbling":
        for _ in range(8):
            x = float(b.rng.uniform(10, 92))
            b.oval(x, 95, float(b.rng.uniform(3, 7)), 4, tone(stone, float(b.rng.uniform(0.7, 1.1))))
    if look.state == "ivied":
        for x, top in gaps:
            path = [(x - 4.0, 90.0), (x + 5.0, 74.0), (x - 4.0, 58.0), (x + 4.0, top + 10.0)]
            b.line(path, 2, (60, 110, 54), smooth=True)
            for px, py in path:
                b.oval(px, py, 6, 5, (74, 134, 60))


def carousel(b: Brush, look: Look) -> None:
    """A merry-go-round; the roof has the named colour."""
    roof, pale = tone(look.colour, 1.0), (252, 240, 206)
    b.poly([(8, 99), (12, 90), (88, 90), (92, 99)], tone(roof, 0.8))
    b.oval(50, 90, 40, 5, (238, 200, 140))
    b.poly([(42, 90), (43, 38), (57, 38), (58, 90)], (244, 206, 96))
    for number, x in enumerate((16, 36, 64, 84)):
        y = 72 if number % 2 else 62
        b.line([(x, 40), (x, 92)], 2, (250, 226, 120))
        coat = ((250, 246, 238), (190, 120, 70), (250, 246, 238), (90, 78, 84))[number]
        b.oval(x, y + 4, 9.5, 5.5, coat)
        b.limb([(x + 5, y + 2), (x + 9, y - 6)], 6, 4.6, coat)
        b.limb([(x + 8, y - 7), (x + 13, y - 4)], 5, 3.6, coat)
        for dx in (-6, 6):
            b.limb([(x + dx, y + 6), (x + dx * 1.4, y + 15)], 3.2, 2.2, coat)
        b.oval(x, y, 4.5, 2.6, tone(roof, 1.2), volume=0)
    edge = [(98, 40), (2, 40)]
    b.poly([(50, 4), *edge], roof)
    if look.state == "striped":
        for x in (10, 38, 66):
            b.poly([(50, 6), (x, 39), (x + 12, 39)], pale, volume=0.4)
    for k in range(8):
        x = 8 + 12 * k
        b.oval(x, 42, 6.4, 6, pale if k % 2 else roof, volume=0.6)
    b.oval(50, 3, 4, 4, (250, 214, 90))
    if look.state == "flagged":
        for x, y in ((50, 2), (14, 34), (86, 34)):
            b.line([(x, y), (x, y - 14)], 1.6, WOOD)
            b.poly([(x, y - 14), (x + 14, y - 10), (x, y - 5)], (250, 206, 70) if x != 50 else tone(roof,
                                                                                                    1.15))
    if look.state == "lamp-lit":
        for k in range(8):
            b.oval(8 + 12 * k, 50, 3, 3, (255, 236, 140), volume=0.3)


def sailboat(b: Brush, look: Look) -> None:
    """A boat under full sail; the sails have the named colour."""
    sail = tone(look.colour, 1.04)
    lean = 16.0 if look.state == "racing" else 0.0

    def at(x: float, y: float) -> Point:
        return x + lean * (84 - y) / 90 - lean * 0.3, y

    b.line([at(50, 82), at(50, -4)], 2.6, WOOD)
    if look.state == "two-masted":
        b.line([at(24, 82), at(24, 12)], 2.4, WOOD)
        b.blob([at(22, 18), at(2, 62), at(10, 70), at(22, 68)], tone(sail, 0.9))
        b.blob([at(26, 16), at(30, 40), at(44, 66), at(36, 70), at(26, 68)], sail)
        b.blob([at(53, -2), at(62, 34), at(92, 66), at(74, 71), at(53, 68)], sail)
    else:
        b.blob([at(47, 2), at(40, 30), at(10, 66), at(26, 71), at(47, 70)], tone(sail, 0.92))
        b.blob([at(53, -4), at(66, 28), at(96, 66), at(78, 72), at(53, 70)], sail)
    if look.state == "striped":
        other = (250, 244, 228) if look.colour != "white" else (210, 60, 60)
        b.poly([at(54, 30), at(71, 30), at(79, 42), at(54, 42)], other, volume=0.5)
        b.poly([at(54, 54), at(87, 54), at(92, 64), at(54, 65)], other, volume=0.5)
    b.poly([at(50, -4), at(64, -9), at(50, -13)], (220, 60, 60))
    b.blob([at(2, 76), at(26, 79), at(76, 79), at(104, 72), at(92, 92), at(70, 98), at(24, 97), at(10, 91)],
           (126, 72, 46))
    b.line([at(6, 80), at(50, 83), at(96, 78)], 2.4, (244, 232, 206), smooth=True)
    for x in (22, 34, 66):
        b.oval(*at(x, 76), 3.6, 3.8, (238, 198, 162))
        b.limb([at(x, 79), at(x, 82)], 8, 8, (60, 90, 150))


def gravestone(b: Brush, look: Look) -> None:
    """A gravestone on its mound."""
    stone, dark = tone(look.colour, 1.04), tone(look.colour, 0.58)
    lean = 12.0 if look.state == "tilted" else 0.0

    def at(x: float, y: float) -> Point:
        return x + lean * (90 - y) / 60, y

    b.blob([(2, 97), (20, 88), (50, 84), (82, 88), (99, 97), (50, 100)], (104, 88, 62))
    if look.state == "broken":
        b.poly([at(22, 90), at(22, 52), at(34, 47), at(40, 52), at(54, 36), at(60, 38), at(72, 22),
                at(78, 32), at(78, 90)], stone)
        b.blob([(-4, 98), (-6, 84), (4, 74), (18, 76), (24, 88), (20, 98)], tone(stone, 0.92))
        b.line([(4, 84), (14, 86)], 2.2, dark)
    else:
        b.poly([at(22, 90), at(22, 32), at(26, 18), at(36, 8), at(50, 4), at(64, 8), at(74, 18), at(78, 32),
                at(78, 90)],
               stone)
        b.poly([at(46, 14), at(54, 14), at(54, 22), at(62, 22), at(62, 29), at(54, 29), at(54, 44), at(46,
                                                                                                       44),
                at(46, 29), at(38, 29), at(38, 22), at(46, 22)], dark, volume=0)
    for y, half in ((56, 18), (64, 14), (72, 17)):
        b.line([at(50 - half, y), at(50 + half, y)], 2.2, dark)
    for x in (14, 30, 68, 88):
        for k in (-4, 0, 4):
            b.line([(x, 98), (x + k, 86)], 1.6, (70, 104, 54))
    if look.state == "mossy":
        for x, y, r in ((28, 80, 11), (70, 84, 12), (68, 22, 8), (32, 30, 7)):
            b.oval(x, y, r, r * 0.6, (96, 136, 62))
    b.oval(44, 92, 5, 3, (200, 170, 190))
    b.oval(54, 94, 5, 3, (220, 200, 214))


def fence(b: Brush, look: Look) -> None:
    """A piece of fence."""
    wood = tone(look.colour, 1.0)
    low = 70.0 if look.state == "low" else 58.0
    for y in (low + 8, 88):
        b.poly([(-6, y - 3), (106, y - 3), (106, y + 3), (-6, y + 3)], tone(wood, 0.85))
    step = 16 if look.state != "picket" else 11
    for x in range(0, 101, step):
        b.poly([(x - 4, 100), (x - 4, low), (x, low - 6), (x + 4, low), (x + 4, 100)], wood)


def well(b: Brush, look: Look) -> None:
    """A stone well."""
    stone = tone(look.colour, 1.0)
    if look.state != "round":
        for x in (28, 72):
            b.poly([(x - 3, 70), (x - 3, 24), (x + 3, 24), (x + 3, 70)], WOOD)
    if look.state == "bucketed":
        b.limb([(22, 30), (78, 30)], 5, 5, WOOD)
        b.line([(50, 30), (50, 50)], 1.4, (220, 204, 170))
        b.poly([(43, 50), (57, 50), (55, 62), (45, 62)], (120, 84, 54))
    if look.state == "roofed":
        b.poly([(12, 30), (50, 4), (88, 30)], (156, 78, 58))
    b.poly([(20, 66), (80, 66), (78, 99), (22, 99)], stone)
    b.oval(50, 66, 30, 7, tone(stone, 1.2))
    b.oval(50, 66, 23, 4.6, (46, 56, 74), volume=0)
    _bricks(b, (22, 74, 78, 98), stone, 14)


def signpost(b: Brush, look: Look) -> None:
    """A wooden signpost."""
    wood = tone(look.colour, 1.0)
    tilt = 7.0 if look.state == "crooked" else 0.0
    b.poly([(46, 100), (46 + tilt, 6), (54 + tilt, 6), (54, 100)], tone(wood, 0.8))
    b.poly([(24, 18 + tilt), (78, 18), (94, 29), (78, 40), (24, 40 + tilt)], wood)
    b.line([(34, 27 + tilt), (70, 26)], 2, DARK)
    b.line([(34, 33 + tilt), (62, 33)], 2, DARK)
    if look.state == "double":
        b.poly([(76, 48), (24, 48), (8, 58), (24, 68), (76, 68)], wood)
        b.line([(30, 58), (66, 58)], 2, DARK)
