"""No label covers another, and none leaves the picture: for any boxes."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.maps.label_places import overlap, place_labels

HEIGHT, WIDTH = 90, 120
boxes = st.tuples(
    st.integers(-20, WIDTH), st.integers(-20, HEIGHT), st.integers(1, WIDTH), st.integers(1, HEIGHT)
).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
sizes = st.tuples(st.integers(1, 140), st.integers(1, 30))


@given(st.lists(st.tuples(boxes, sizes), max_size=12))
@settings(max_examples=200)
def test_labels_never_overlap_and_stay_inside(found: list) -> None:
    places = place_labels([box for box, _ in found], [size for _, size in found], HEIGHT, WIDTH)
    drawn = np.zeros((HEIGHT, WIDTH), int)
    for place, (_, (wide, tall)) in zip(places, found, strict=True):
        if place is not None:
            x1, y1, x2, y2 = place
            assert (x2 - x1, y2 - y1) == (wide, tall)
            assert 0 <= x1 < x2 <= WIDTH and 0 <= y1 < y2 <= HEIGHT
            drawn[y1:y2, x1:x2] += 1
    assert drawn.max(initial=0) <= 1
    for one, other in itertools.combinations([place for place in places if place], 2):
        assert not overlap(one, other)


def test_one_label_lies_in_its_corner_and_the_next_finds_room() -> None:
    box = (10, 20, 80, 70)
    places = place_labels([box, box], [(30, 12), (30, 12)], HEIGHT, WIDTH)
    assert places == [(10, 20, 40, 32), (10, 8, 40, 20)]
    assert place_labels([box], [(WIDTH + 1, 5)], HEIGHT, WIDTH) == [None]
