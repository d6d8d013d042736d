"""Drawings of nature and the sky: peak, waterfall, comet, fireworks, balloon, clouds, trees, bush, rock."""

import math

import numpy as np

from pipeline.gallery.paint.brush import Brush, Colour, Point, tone
from pipeline.gallery.world import Look

# The points of a drawing read better in rows.
# fmt: off

BARK: Colour = (104, 72, 50)


def mountain_peak(b: Brush, look: Look) -> None:
    """A high peak with a white cap."""
    rock, dark = tone(look.colour, 1.06), tone(look.colour, 0.66)
    tops: list[Point] = [(48.0, 6.0)] if look.state != "twin" else [(34.0, 10.0), (70.0, 22.0)]
    for x, y in tops:
        left, right = x - (104 - y) * 0.52, x + (104 - y) * 0.54
        rough = 5.0 if look.state == "jagged" else 2.0
        steps = np.linspace(0, 1, 8)[1:-1]
        west = [(left + (x - left) * t, 100 + (y - 100) * t + float(b.rng.normal(0, rough))) for t in steps]
        east = [(x + (right - x) * t, y + (100 - y) * t + float(b.rng.normal(0, rough))) for t in steps]
        ridge = [(x, y), (x + 5, y + 20), (x - 4, y + 38), (x + 8, y + 58), (x + 2, 100)]
        b.poly([(left, 100), *west, (x, y), *east, (right, 100)], rock)
        b.poly([*ridge, (right, 100), *east[::-1]], dark, volume=0.5)
        deep = 48 if look.state == "snowy" else 28
        w, e = x - deep * 0.5, x + deep * 0.52
        b.poly([(x, y), (e, y + deep), (x + deep * 0.28, y + deep * 0.82), (x + 3, y + deep * 1.12),
                (x - deep * 0.2, y + deep * 0.8), (w, y + deep)], (250, 252, 255))
        b.poly([(x, y), (x + 5, y + 20), (x + 1, y + deep * 0.95), (x + deep * 0.28, y + deep * 0.82),
                (e, y + deep)],
               (206, 220, 240), volume=0.3)
    for x in np.linspace(2, 98, 13):
        high = float(b.rng.uniform(8, 16))
        fir = tone((46, 92, 66), float(b.rng.uniform(0.85, 1.15)))
        b.poly([(x - 6, 102), (x, 101 - high), (x + 6, 102)], fir, volume=0.5)


def waterfall(b: Brush, look: Look) -> None:
    """Water falling from a cliff; the water has the named colour."""
    half = {"slender": 11.0, "thundering": 25.0}.get(look.state, 17.0)
    water = tone(look.colour, 1.0)
    pale = tone(look.colour, 1.5)
    rock: Colour = (112, 96, 88)
    b.poly([(2, 98), (6, 50), (2, 30), (16, 10), (34, 4), (66, 6), (86, 10), (98, 32), (94, 56), (99, 98)],
           rock)
    for x0, y0, x1, y1 in ((8, 40, 24, 60), (80, 30, 92, 50), (84, 64, 94, 84), (10, 74, 22, 92)):
        b.poly([(x0, y0), (x1, y0 + 5), (x1 - 2, y1), (x0 + 3, y1 - 3)], tone(rock, 1.22))
    b.blob([(50 - half, 4), (50 + half, 4), (50 + half * 1.05, 40), (50 + half * 1.2, 92),
            (50 - half * 1.2, 92),
            (50 - half * 1.05, 40)], water)
    for k in range(7):
        x = 50 + half * (k - 3) / 3.4
        b.line([(x, 8 + 2 * (k % 3)), (x + (x - 50) * 0.08, 50), (x + (x - 50) * 0.15, 88)], 1.8,
               pale if k % 2 else tone(water, 0.84), smooth=True)
    b.oval(50, 95, 46, 6, tone(water, 0.9))
    for x in (30, 42, 54, 66, 74):
        b.oval(x, 91 - (x % 4), 8, 5.6, tone("white", 1.3))
    for x, y in ((8, 12), (20, 5), (84, 5), (94, 16)):
        b.oval(x, y, 9, 7, (70, 128, 72))
    if look.state == "rainbow-lit":
        for k, colour in enumerate(("red", "orange", "yellow", "green", "blue", "purple")):
            arc = [(50 + (44 - 3 * k) * math.cos(a),
                    92 - (48 - 3 * k) * math.sin(a)) for a in np.linspace(0.15, 2.99, 14)]
            b.line(arc, 3, tone(colour, 1.15))


def comet(b: Brush, look: Look) -> None:
    """A star with a tail of light; drawn from the upper left down to the right."""
    light = tone(look.colour, 1.12)
    long = 14.0 if look.state == "long-tailed" else 0.0
    tails = [((8 - long, 16 - long / 2), 21.0)]
    if look.state == "double-tailed":
        tails = [((4, 36), 14.0), ((32, 0), 14.0)]
    for (x, y), wide in tails:
        dx, dy = 76 - x, 74 - y
        n = math.hypot(dx, dy)
        u, v = -dy / n * wide, dx / n * wide
        b.blob([(x, y), (x + dx * 0.5 + u * 0.8, y + dy * 0.5 + v * 0.8), (76 + u, 74 + v), (82, 80),
                (76 - u, 74 - v),
                (x + dx * 0.5 - u * 0.8, y + dy * 0.5 - v * 0.8)], tone(look.colour, 0.84), volume=0.3)
        b.blob([(x + dx * 0.2, y + dy * 0.2), (76 + u * 0.55, 74 + v * 0.55), (80, 78),
                (76 - u * 0.55, 74 - v * 0.55)],
               light, volume=0.3)
    points: list[Point] = []
    spikes = 16 if look.state == "blazing" else 10
    for k in range(spikes):
        r = (24 if look.state == "blazing" else 20) if k % 2 == 0 else 12
        points.append((76 + r * math.cos(2 * math.pi * k / spikes),
                       74 + r * math.sin(2 * math.pi * k / spikes)))
    b.poly(points, light)
    b.oval(76, 74, 11, 11, tone(look.colour, 1.6))


def fireworks(b: Brush, look: Look) -> None:
    """Bursts of sparks around bright hearts."""
    fire = tone(look.colour, 1.08)
    pale = tone(look.colour, 1.55)
    bursts = {"bursting": [(50.0, 48.0, 50.0)], "showering": [(50.0, 34.0, 40.0)]}.get(
        look.state, [(34.0, 34.0, 34.0), (74.0, 62.0, 28.0)])
    for x, y, r in bursts:
        rays = 15 if r > 30 else 11
        for k in range(rays):
            a = 2 * math.pi * (k + float(b.rng.uniform(-0.2, 0.2))) / rays
            fall = 34.0 if look.state == "showering" else 0.12 * r
            tip = (x + r * math.cos(a), y + r * math.sin(a) + fall)
            bend = (x + 0.6 * r * math.cos(a), y + 0.6 * r * math.sin(a))
            b.limb([(x, y), bend, tip], 0.05 * r, 0.17 * r, fire if k % 3 else pale, volume=0.3)
            b.dot(tip[0], tip[1], 0.07 * r, (255, 250, 226))
        b.oval(x, y, 0.38 * r, 0.38 * r, fire, volume=0.5)
        b.oval(x, y, 0.22 * r, 0.22 * r, pale, volume=0.2)
        for _ in range(9):
            a = float(b.rng.uniform(0, 2 * math.pi))
            b.dot(x + 0.75 * r * math.cos(a), y + 0.75 * r * math.sin(a), 0.055 * r, pale)


def balloon(b: Brush, look: Look) -> None:
    """A hot-air balloon."""
    cloth, pale = tone(look.colour, 1.0), (252, 244, 224)
    for x in (34.0, 44.0, 56.0, 66.0):
        b.line([(50 + (x - 50) * 0.9, 62), (50 + (x - 50) * 0.42, 86)], 1.2, (96, 72, 52))
    b.blob([(50, -2), (74, 6), (86, 28), (80, 50), (60, 70), (40, 70), (20, 50), (14, 28), (26, 6)], cloth,
           volume=1.5)
    if look.state == "striped":
        for x in (28.0, 50.0, 72.0):
            b.blob([(50 + (x - 50) * 0.3, 0), (x + 6.5, 30), (50 + (x - 50) * 0.5 + 3, 69),
                    (50 + (x - 50) * 0.5 - 3, 69),
                    (x - 6.5, 30)], pale, volume=0.5)
    elif look.state == "chequered":
        for row, y in enumerate((10, 24, 38, 52)):
            wide = (44, 64, 62, 44)[row]
            for k in range(3):
                x = 50 + wide * ((k + (0.5 if row % 2 else 0.0)) / 3 - 0.42)
                b.poly([(x - 6, y - 6), (x + 6, y - 6), (x + 6, y + 6), (x - 6, y + 6)], pale, volume=0.4)
    else:
        b.oval(34, 20, 6, 12, tone(cloth, 1.4), turn=24, volume=0)
    b.poly([(40, 67), (60, 67), (58, 72), (42, 72)], tone(cloth, 0.7))
    b.poly([(40, 85), (60, 85), (58, 99), (42, 99)], (158, 108, 62))
    for y in (89, 94):
        b.line([(41, y), (59, y)], 1.4, (116, 76, 44))
    b.oval(50, 81, 3.6, 4, (238, 198, 162))


def storm_cloud(b: Brush, look: Look) -> None:
    """A heavy cloud with lightning below it."""
    dark = tone(look.colour, 0.82) if look.colour != "black" else tone("black", 1.1)
    pale = tone(dark, 1.16)
    tall = -14.0 if look.state == "towering" else 0.0
    bolts = ((34.0, 52.0), (66.0, 50.0)) if look.state == "flashing" else ((52.0, 52.0),)
    if look.state == "rain-heavy":
        for number in range(10):
            x = 10.0 + 9 * number
            b.limb([(x, 58), (x - 7, 76 + x % 4 * 5)], 4, 3, (110, 130, 176), volume=0)
    for x, y in bolts:
        b.poly([(x - 2, y), (x + 12, y), (x + 4, y + 18), (x + 13, y + 18), (x - 8, y + 48), (x - 2, y + 25),
                (x - 11, y + 25)], (255, 232, 100), volume=0.4)
    puffs = [(20, 44, 20), (80, 44, 20), (36, 28 + tall / 2, 22), (62, 26 + tall, 24), (50, 46, 24),
             (30, 52, 14), (70, 52, 15)]
    for k, (x, y, r) in enumerate(puffs):
        b.oval(x, y, r, r * 0.86, dark if k % 3 else pale, volume=1.3)
    b.blob([(4, 50), (24, 44), (50, 48), (76, 44), (97, 50), (84, 61), (52, 64), (18, 61)], tone(dark, 0.72),
           volume=0.6)


def cloud(b: Brush, look: Look) -> None:
    """A light cloud."""
    vapour = tone(look.colour, 1.25)
    flat = 0.6 if look.state == "long" else 1.0
    for x, y, r in ((18, 62, 16), (82, 64, 15), (34, 50, 20), (66, 50, 20), (50, 42, 22), (50, 64, 22)):
        b.oval(x, 64 + (y - 64) * flat, r, r * 0.8 * flat, vapour)
    if look.state == "fluffy":
        for x, y in ((24, 46), (42, 30), (62, 32), (78, 48)):
            b.oval(x, y, 12, 10, tone(vapour, 1.3), volume=0.6)


def tree(b: Brush, look: Look) -> None:
    """A broad-leaved tree."""
    leaf = tone(look.colour, 0.92)
    lean = 9.0 if look.state == "leaning" else 0.0
    b.limb([(50, 99), (49, 76), (50 + lean, 50)], 13, 8, BARK)
    b.limb([(50, 70), (34 + lean, 56)], 6, 4, BARK)
    b.limb([(50, 68), (66 + lean, 54)], 6, 4, BARK)
    if look.state == "round":
        crowns = [(50, 34, 34)]
    else:
        crowns = [(28, 44, 19), (72, 44, 19), (36, 24, 20), (64, 24, 20), (50, 40, 24)]
    for k, (x, y, r) in enumerate(crowns):
        b.oval(x + lean, y, r, r * 0.92, tone(leaf, 0.92 + 0.05 * (k % 3)))
    spots = np.array([50 + lean, 36]) + b.rng.normal(0, 1, (70, 2)) * np.array([17, 13])
    b.dabs(spots, 2.6, [tone(leaf, 0.76), tone(leaf, 1.2), tone(leaf, 0.88)])


def pine(b: Brush, look: Look) -> None:
    """A fir in tiers."""
    leaf = tone(look.colour, 0.72)
    wide = {"slim": 22.0, "stout": 40.0}.get(look.state, 30.0)
    b.poly([(46, 100), (46, 82), (54, 82), (54, 100)], BARK)
    for k in range(4):
        y = 88 - 21 * k
        half = wide * (1 - 0.2 * k)
        b.poly([(50 - half, y), (50 - half * 0.3, y - 20), (50, y - 31), (50 + half * 0.3, y - 20),
                (50 + half, y),
                (50 + half * 0.4, y - 3), (50, y + 3), (50 - half * 0.4, y - 3)], tone(leaf, 0.9 + 0.08 * k))


def bush(b: Brush, look: Look) -> None:
    """A low bush."""
    leaf = tone(look.colour, 0.88)
    high = 0.75 if look.state == "wide" else 1.0
    for k, (x, y, r) in enumerate(((18, 82, 17), (82, 82, 17), (36, 68, 22), (64, 68, 22), (50, 80, 24))):
        b.oval(x, 98 + (y - 98) * high, r, r * 0.84 * high, tone(leaf, 0.88 + 0.06 * (k % 3)))
    spots = np.array([50, 98 - 26 * high]) + b.rng.normal(0, 1, (40, 2)) * np.array([22, 9 * high])
    b.dabs(spots, 2.6, [tone(leaf, 0.75), tone(leaf, 1.25)])
    if look.state == "berried":
        b.dabs(np.array([50, 76]) + b.rng.normal(0, 1, (26, 2)) * np.array([22, 10]), 3, ["red",
                                                                                          (180, 20, 40)])


def rock(b: Brush, look: Look) -> None:
    """A boulder."""
    stone = tone(look.colour, 1.0)
    if look.state == "round":
        b.blob([(8, 98), (6, 70), (26, 46), (58, 42), (86, 58), (96, 84), (90, 99)], stone, volume=1.3)
    else:
        b.poly([(2, 99), (8, 68), (24, 46), (52, 38), (80, 54), (96, 78), (98, 99)], stone, volume=1.3)
        b.poly([(24, 46), (52, 38), (60, 60), (36, 66)], tone(stone, 1.2), volume=0.4)
    if look.state == "split":
        b.poly([(50, 40), (58, 58), (52, 74), (58, 99), (49, 99), (46, 74), (50, 58)], tone(stone, 0.5),
               volume=0)
    if look.state == "mossy":
        b.blob([(8, 70), (26, 46), (54, 38), (70, 48), (50, 56), (34, 62), (22, 78)], (104, 142, 66))
