"""Which split an artwork is in: by the csv or APOLO's index files where they say, else ArtEmis's random
split."""

from collections.abc import Collection, Mapping

from pipeline.releases import apolo, artemis
from pipeline.utterances.columns import Name


def assign_splits(
    repetitions: Mapping[Name, int],
    listed: Mapping[Name, Collection[str]] | None,
    fractions: tuple[float, float, float],
    seed: int,
    rest_repetition: int,
) -> dict[Name, str]:
    """Split of every artwork: train, val, test or rest.

    Args:
        repetitions: each artwork's annotation count.
        listed: the splits that the csv, or the index files, give an artwork's rows; the strictest counts, and
            an artwork without any goes to rest. None: neither says.
        fractions, seed, rest_repetition: of the random split, see `artemis.split_artworks`.
    """
    if listed is None:
        return artemis.split_artworks(repetitions, fractions, seed, rest_repetition)
    return {
        name: apolo.strictest(set(listed.get(name, ()))) if listed.get(name) else "rest"
        for name in repetitions
    }
