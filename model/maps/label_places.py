"""Where the names of boxes are written, so that no two cover each other."""

from collections.abc import Sequence

Rectangle = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels, x2 and y2 exclusive."""


def place_labels(
    boxes: Sequence[Rectangle], sizes: Sequence[tuple[int, int]], height: int, width: int
) -> list[Rectangle | None]:
    """A place for each label, in the order given: those that come first choose first.

    Tried are the inside of the box's top left corner, above it, inside its bottom left, below it, and then
    the same left edge from the box's top downwards and upwards, step by step.

    Args:
        boxes: of the labels.
        sizes: (width, height) of each label, pixels.
        height, width: of the picture.

    Returns:
        Per label its rectangle, within the picture; None where no place is free, or the label is wider or
        taller than the picture.
    """
    taken: list[Rectangle] = []
    places: list[Rectangle | None] = []
    for (x1, y1, _, y2), (wide, tall) in zip(boxes, sizes, strict=True):
        found = None
        if 0 < wide <= width and 0 < tall <= height:
            left = min(max(x1, 0), width - wide)
            steps = range(0, height, max(1, tall // 2))
            tops = [y1, y1 - tall, y2 - tall, y2, *(y1 + step for step in steps)]
            tops += [y1 - step for step in steps]
            tries = ((left, top, left + wide, top + tall) for top in tops if 0 <= top <= height - tall)
            free = (place for place in tries if not any(overlap(place, other) for other in taken))
            found = next(free, None)
        places.append(found)
        if found is not None:
            taken.append(found)
    return places


def overlap(one: Rectangle, other: Rectangle) -> bool:
    """Whether two rectangles share a pixel."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
