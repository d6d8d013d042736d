"""Own ranks against a loop."""

import numpy as np
import torch

from pipeline.similarity.peers import Peers


def test_ranks_equal_a_loop_over_the_other_artworks() -> None:
    rng = np.random.default_rng(0)
    regions = {f"k{n}": rng.normal(size=(3 + n, 8)) for n in range(6)}
    texts = {(f"k{n % 8}", emotion): rng.normal(size=8) for n in range(8) for emotion in ("awe", "fear")}
    peers = Peers(4)
    for key, features in regions.items():
        peers.add(key, torch.tensor(features))
    own = {pair: max(regions[pair[0]] @ text) if pair[0] in regions else 0.3 for pair, text in texts.items()}
    asked = {pair: (torch.tensor(text), torch.tensor(own[pair])) for pair, text in texts.items()}
    ranks = peers.own_ranks(asked)
    for pair, text in texts.items():
        others = [max(regions[f"k{n}"] @ text) for n in range(4) if f"k{n}" != pair[0]]
        wanted = np.mean([own[pair] > other for other in others])
        assert ranks[pair] == np.float32(wanted)


def test_alone_or_unasked_there_is_no_rank() -> None:
    peers = Peers(4)
    peers.add("a", torch.ones(2, 3))
    asked = {("a", "awe"): (torch.ones(3), torch.tensor(1.0))}
    assert peers.own_ranks(asked) == {("a", "awe"): None}
    assert Peers(0).own_ranks(asked) == {("a", "awe"): None}
    peers.add("b", torch.ones(1, 3))
    assert peers.own_ranks({("a", "awe"): (torch.ones(3), torch.tensor(3.0))}) == {("a", "awe"): 0.5}  # a tie
