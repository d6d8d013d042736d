"""Parameters and multiply-adds of Tab. 2 and 3, to the digit; the counting rules against fvcore itself."""

import re
import warnings

import pytest
import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import MaskDecoder, TwoWayTransformer

from model.bench.flops import Part, multiply_adds, published
from model.emosem.config import EmoSEMConfig, ScaConfig
from model.emosem.network import build_emosem
from tests.imports import ROOT

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


def test_scas_commands_name_the_language_models_of_its_printed_sizes() -> None:
    """docs/paper.md: SCA_base with GPT-2 small and not with EmoSEM's model; SCA_huge-FT with GPT-2 large."""
    page = (ROOT / "docs" / "paper.md").read_text()
    named = re.findall(r"language_model=weights/(\S+) -S '\+\+train.variants.single.model=sca'", page)
    assert named == ["gpt2", "gpt2-large"]
    with torch.device("meta"):
        sam = sam_model_registry["vit_b"]()
        for blocks, size in ((12, 237_667_248), (6, 195_140_016)):  # GPT-2 small, distilgpt2
            model = build_emosem(EmoSEMConfig(sca=ScaConfig(), language_model={"n_layer": blocks}))
            ours = torch.nn.ModuleList([model.emotion_projector, model.caption_mixer, model.captioner])
            assert sum(p.numel() for p in {*sam.parameters(), *ours.parameters()}) == size
            assert f"{size:,}" in page


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
