"""Parameters and multiply-adds of Tab. 2 and 3, to the digit; the counting rules against fvcore itself."""

import re
import warnings

import pytest
import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import MaskDecoder, TwoWayTransformer

from model.bench.flops import Part, inventory, multiply_adds, published
from model.emosem.config import EmoSEMConfig
from model.emosem.sca import ScaConfig
from tests.imports import ROOT

LARGE = {"n_embd": 1280, "n_head": 20, "tie_word_embeddings": False}

fvcore = pytest.importorskip("fvcore.nn", reason="fvcore is not installed")


@pytest.fixture(scope="module")
def parts() -> dict[str, dict[str, Part]]:
    return published()


@pytest.mark.parametrize(
    ("name", "parameters", "giga"),
    [
        ("EmoSEM", 276_615_344, 509.17),
        ("SCA_base", 237_667_248, 500.21),
        ("SCA_huge-FT", 1_499_210_416, 3018.16),
    ],
)
def test_the_published_totals(
    parts: dict[str, dict[str, Part]], name: str, parameters: int, giga: float
) -> None:
    assert sum(part.parameters for part in parts[name].values()) == parameters
    assert round(sum(part.multiply_adds for part in parts[name].values()) / 1e9, 2) == giga


BLOCKS = {"distilgpt2": 6, "gpt2": 12, "gpt2-large": 36}
"""Transformer blocks of the language models that commands name."""


def test_scas_commands_name_the_language_models_of_its_printed_sizes(
    parts: dict[str, dict[str, Part]],
) -> None:
    """docs/paper.md: its own for SCA_base, EmoSEM's would give 195 M; and the one that has SCA_huge-FT's."""
    page = (ROOT / "docs" / "paper.md").read_text()
    named = re.findall(r"language_model=weights/(\S+) -S '\+\+train.variants.single.model=sca'", page)
    with torch.device("meta"):
        base, huge = (sam_model_registry[name]() for name in ("vit_b", "vit_h"))
    sizes = []
    for folder, sam, more in zip(named, (base, huge), ({}, LARGE), strict=True):
        config = EmoSEMConfig(sca=ScaConfig(), language_model={"n_layer": BLOCKS[folder], **more})
        sizes.append(sum(part.parameters for part in inventory(config, sam, None).values()))
    assert sizes == [237_667_248, 1_499_210_416]
    small = inventory(EmoSEMConfig(sca=ScaConfig()), base, None)
    assert sum(part.parameters for part in small.values()) == 195_140_016
    assert all(f"{size:,}" in page for size in (*sizes, 195_140_016))


def test_what_trains_in_emosem(parts: dict[str, dict[str, Part]]) -> None:
    """Language model, projectors, mask head with the default mask's hypernetwork, mask tokens (Sec. 4.1)."""
    trainable = {name: part.trainable for name, part in parts["EmoSEM"].items() if part.trainable}
    assert trainable == {
        "SAM mask decoder": 73_952 + 139_808 + 4 * 256,
        "emotion projector": 196_864,
        "prefix projector": 394_368,
        "language model": 96_096_000,
    }


def test_counting_rules_are_fvcores() -> None:
    """SAM's own decoder, small and real on a processor, by fvcore; ours by torch's counter."""
    torch.manual_seed(0)
    decoder = MaskDecoder(
        transformer_dim=32,
        transformer=TwoWayTransformer(depth=2, embedding_dim=32, num_heads=4, mlp_dim=48),
        num_multimask_outputs=3,
    ).eval()
    inputs = (
        torch.randn(1, 32, 6, 6),
        torch.randn(1, 32, 6, 6),
        torch.randn(1, 5, 32),
        torch.randn(1, 32, 6, 6),
        torch.tensor([False]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        counted = fvcore.FlopCountAnalysis(decoder, inputs).unsupported_ops_warnings(False).total()
    assert counted > 0
    assert multiply_adds(lambda: decoder(*inputs)) == counted
