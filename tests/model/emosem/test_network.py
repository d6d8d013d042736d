"""The network: the paper's size, its two paradigms and four prefixes, what learns and what does not."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from model.emosem.config import EmoSEMConfig, ScaConfig, method_name
from model.emosem.mask_decoder import Decoded
from model.emosem.network import EmoSEM, build_emosem
from model.emosem.pretrained import build_pretrained, load_sam_decoder
from pipeline.common.errors import UserError
from tests.worlds import trained_shards

VOCABULARY = 60
SMALL = EmoSEMConfig(
    dim=32,
    grid=6,
    image_size=48,
    mixer_heads=4,
    mixer_mlp_dim=48,
    visual_dim=32,
    language_model={
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 40,
        "vocab_size": VOCABULARY,
        "eos_token_id": 0,
        "bos_token_id": 0,
    },
    prompts=tuple((1, 2, 3, 10 + e, 30) if e == 2 else (1, 2, 3, 10 + e) for e in range(8)),
)
KINDS = [
    ("single", "mask+prompt", 6),
    ("single", "mask", 1),
    ("single", "prompt", 5),
    ("single", "none", 0),
    ("multi", "mask", 1),
    ("multi", "none", 0),
]


def small(paradigm: str = "single", prefix: str = "mask+prompt", **changes: object) -> EmoSEM:
    torch.manual_seed(0)
    return build_emosem(dataclasses.replace(SMALL, paradigm=paradigm, prefix=prefix, **changes)).eval()  # type: ignore[arg-type]


def ask(model: nn.Module, emotions: list[int] | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    sam, clip = torch.randn(2, 32, 6, 6, generator=generator), torch.randn(2, 9, 32, generator=generator)
    logits: tuple[torch.Tensor, torch.Tensor] = model(
        sam,
        clip,
        rows_Q=torch.tensor([0, 1, 1]),
        emotion_Q=torch.tensor(emotions or [2, 0, 7]),
        query_T=torch.tensor([0, 0, 1, 2]),
        tokens_TL=torch.randint(0, VOCABULARY, (4, 5), generator=generator),
    )
    return logits


def test_the_papers_parameters_to_the_digit() -> None:
    """276.62 M with SAM ViT-B, CLIP ViT-B/16 with its projection, and distilgpt2 (paper, Tab. 2)."""
    with torch.device("meta"):
        model = build_emosem(EmoSEMConfig())

    def count(module: nn.Module | None) -> int:
        return sum(p.numel() for p in module.parameters()) if module else 0

    sam, clip = 93_735_472, 86_192_640
    bridges = count(model.emotion_projector) + count(model.prefix_projector)
    assert sam + clip + count(model.captioner) + bridges == 276_615_344
    assert bridges == 591_232 and count(model.captioner) == 96_096_000
    assert count(model.mask_decoder.transformer) == 3_291_264
    groups = {name: sum(p.numel() for p in ps) for name, ps in model.parameter_groups().items()}
    mask_head = 73_952 + 139_808  # upscaling, hypernetwork 0
    assert groups == {"segmenter": 591_232 + mask_head + 4 * 256, "language_model": 96_096_000}
    assert [len(prompt) for prompt in model.config.prompts] == [8, 8, 9, 8, 8, 8, 8, 8]  # "content", "ment"


@pytest.mark.parametrize(("paradigm", "prefix", "length"), KINDS)
def test_shapes(paradigm: str, prefix: str, length: int) -> None:
    model = small(paradigm, prefix)
    masks, words = ask(model)
    assert masks.shape == (3, 24, 24) and words.shape == (4, 5, VOCABULARY)
    found = model.segment(torch.randn(2, 32, 6, 6), torch.tensor([0, 1]), torch.tensor([2, 5]))
    assert found.prefix.shape == (2, length, 32)
    if paradigm == "single" and "prompt" in prefix:
        assert found.prefix_mask is not None
        kept = found.prefix_mask.tolist()
        assert kept[0] == [True] * length and kept[1] == [True] * 4 + [False] + [True] * (length - 5)
    else:
        assert found.prefix_mask is None


@pytest.mark.parametrize("prefix", ["mask+prompt", "prompt"])
def test_a_longer_prompt_in_the_batch_leaves_other_rows_alone(prefix: str) -> None:
    """Emotion 2 has one token more; the other rows are then padded."""
    model = small(prefix=prefix)
    with_longer, without = ask(model, [2, 0, 7]), ask(model, [5, 0, 7])
    for a, b in zip(with_longer, without, strict=True):
        torch.testing.assert_close(a[2:], b[2:])
    plain = dataclasses.replace(SMALL, prefix=prefix, prompts=tuple((1, 2, 3, 10 + e) for e in range(8)))  # type: ignore[arg-type]
    unpadded = build_emosem(plain).eval()
    unpadded.load_state_dict(model.state_dict())
    for a, b in zip(with_longer, ask(unpadded, [5, 0, 7]), strict=True):
        torch.testing.assert_close(a[2:], b[2:])


def test_queries_do_not_see_each_other() -> None:
    for paradigm, prefix, _ in KINDS:
        model = small(paradigm, prefix)
        a, b = ask(model, [2, 0, 7]), ask(model, [2, 3, 7])
        torch.testing.assert_close(a[0][[0, 2]], b[0][[0, 2]])
        torch.testing.assert_close(a[1][[0, 1, 3]], b[1][[0, 1, 3]])
        if paradigm == "single":
            assert (a[0][1] - b[0][1]).abs().max() > 1e-6  # but the one that changed, does


@pytest.mark.parametrize(("paradigm", "prefix", "_"), KINDS)
@pytest.mark.parametrize("finetune", ["mask-head", "mask-decoder"])
def test_gradients_reach_the_papers_parts_and_nothing_else(
    paradigm: str, prefix: str, _: int, finetune: str
) -> None:
    model = small(paradigm, prefix, finetune=finetune).train()
    masks, words = ask(model)
    (masks.square().mean() + words.logsumexp(-1).mean()).backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    parts = ["captioner", "mask_decoder.mask_tokens", "mask_decoder.output_upscaling"]
    parts += [
        f"mask_decoder.output_hypernetworks_mlps.{i}." for i in ([0, 2, 7] if paradigm == "multi" else [0])
    ]
    parts += ["emotion_projector"] * (paradigm == "single") + ["prefix_projector"] * (prefix != "none")
    parts += ["mask_decoder.transformer", "mask_decoder.iou_token"] * (finetune == "mask-decoder")
    expected = {name for name, _ in model.named_parameters() if name.startswith(tuple(parts))}
    dead = {name for name in expected if name.endswith("k_proj.bias")}  # softmax is blind to them
    assert expected - dead <= reached <= expected
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    in_groups = sum(len(group) for group in model.parameter_groups().values())
    assert reached <= trainable and in_groups == len(trainable)
    assert not {n for n in trainable if "transformer.layers" in n} or finetune == "mask-decoder"


@pytest.mark.parametrize(("paradigm", "prefix"), [("single", "mask+prompt"), ("multi", "mask")])
def test_words_may_see_what_the_mask_encloses_and_nothing_else(
    paradigm: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a loop over queries and cells; patch tokens and masks are then out of the words' reach."""
    model = small(paradigm, prefix, visual="region")
    decoded: list[Decoded] = []
    decode = model.mask_decoder.forward

    def forward(*args: Any, **keywords: Any) -> Decoded:
        decoded.append(decode(*args, **keywords))
        return decoded[-1]

    monkeypatch.setattr(model.mask_decoder, "forward", forward)
    sam, rows, emotions = torch.randn(2, 32, 6, 6), torch.tensor([0, 1, 1]), torch.tensor([2, 0, 7])
    found = model.segment(sam, rows, emotions)
    assert found.region is not None and model.region_projector is not None
    for q, row in enumerate(rows.tolist()):
        probability = found.mask_logits[q].detach().sigmoid()
        image = decoded[0].image[row if paradigm == "multi" else q]
        total, weight = torch.zeros(32), 0.0
        for cell in range(36):
            y, x = divmod(cell, 6)
            inside = float(probability[4 * y : 4 * y + 4, 4 * x : 4 * x + 4].mean())
            total, weight = total + inside * image[cell], weight + inside
        torch.testing.assert_close(found.region[q, 0], model.region_projector(total / weight))
    found.region.sum().backward()
    assert model.mask_decoder.output_upscaling[0].weight.grad is None
    texts = {"rows_Q": rows, "emotion_Q": emotions, "query_T": torch.tensor([2, 0])}
    tokens = torch.randint(0, VOCABULARY, (2, 5))
    words = [model(sam, clip, **texts, tokens_TL=tokens)[1] for clip in torch.randn(2, 2, 9, 32)]
    assert torch.equal(*words)
    other = model(sam.flip(0), torch.randn(2, 9, 32), **texts, tokens_TL=tokens)[1]
    assert (other - words[0]).abs().max() > 1e-6


def test_the_region_is_named_and_is_no_scas() -> None:
    assert method_name(dataclasses.replace(SMALL, visual="region")) == "emosem-single-region"
    assert method_name(SMALL) == "emosem-single"
    with pytest.raises(ValueError, match="sca has no cross-attention"):
        EmoSEMConfig(sca=ScaConfig(), visual="region")


def test_the_prompts_gradient_can_be_kept_from_the_word_embedding() -> None:
    for detach in (False, True):
        model = small(prefix="none", detach_prompt=detach)
        found = model.segment(torch.randn(1, 32, 6, 6), torch.tensor([0]), torch.tensor([4]))
        found.mask_logits.square().mean().backward()
        gradient = model.captioner.gpt2.transformer.wte.weight.grad
        assert (gradient is None) == detach
        if not detach:
            assert set(gradient.abs().sum(1).nonzero().flatten().tolist()) == {1, 2, 3, 14}


@pytest.mark.parametrize(("paradigm", "prefix", "_"), KINDS[:1] + KINDS[4:5])
def test_saved_and_loaded_it_is_the_same(tmp_path: Path, paradigm: str, prefix: str, _: int) -> None:
    model = small(paradigm, prefix)
    model.save_pretrained(tmp_path / "run")
    loaded = EmoSEM.from_pretrained(tmp_path / "run")
    assert loaded.config == model.config
    for a, b in zip(ask(model), ask(loaded), strict=True):
        assert torch.equal(a, b)
    loaded.save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_folder_without_a_model_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no trained model"):
        EmoSEM.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"paradigm": "triple"}')
    with pytest.raises(UserError, match="holds no trained model"):
        EmoSEM.from_pretrained(tmp_path)


def test_bad_configs_say_what_to_do() -> None:
    with pytest.raises(ValueError, match="use mask or none"):
        EmoSEMConfig(paradigm="multi", prefix="prompt")
    with pytest.raises(ValueError, match="8 lists of token ids"):
        EmoSEMConfig(prompts=((1,),))
    with pytest.raises(ValueError, match="32 wide and CLIP's patch tokens 48"):
        build_emosem(dataclasses.replace(SMALL, visual_dim=48))


# ---- pretrained parts ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return trained_shards.backbones(tmp_path_factory.mktemp("weights"))


def pretrained(parts: tuple[Path, Path], paradigm: str = "single", prefix: str = "mask+prompt") -> EmoSEM:
    return build_pretrained(
        *parts,
        paradigm=paradigm,  # type: ignore[arg-type]
        prefix=prefix,  # type: ignore[arg-type]
        finetune="mask-head",
        detach_prompt=False,
        max_tokens=25,
        visual_dim=trained_shards.WIDTH,
    )


def test_sam_and_gpt2_are_taken_over(parts: tuple[Path, Path]) -> None:
    from safetensors.torch import load_file

    sam, gpt2 = load_file(parts[0]), load_file(parts[1] / "model.safetensors")
    model = pretrained(parts)
    state = model.state_dict()
    for name in ("transformer.layers.1.mlp.lin1.weight", "mask_tokens.weight", "iou_token.weight"):
        assert torch.equal(state[f"mask_decoder.{name}"], sam[f"mask_decoder.{name}"])
    assert torch.equal(state["mask_decoder.no_mask_embed.weight"], sam["prompt_encoder.no_mask_embed.weight"])
    for name, tensor in gpt2.items():
        assert torch.equal(state[f"captioner.gpt2.{name}"], tensor)
    assert model.captioner.gpt2.lm_head.weight is model.captioner.gpt2.transformer.wte.weight
    assert model.config.image_size == trained_shards.SAM.img_size and model.config.mixer_heads == 4
    assert model.prompts_differ  # the tiny tokenizer has no token for contentment


def test_multi_starts_from_sams_first_token(parts: tuple[Path, Path]) -> None:
    state = load_sam_decoder(parts[0]).state
    decoder = pretrained(parts, "multi", "mask").mask_decoder.state_dict()
    first = state["mask_tokens.weight"][0]
    noise = decoder["mask_tokens.weight"] - first
    scale = first.square().mean().sqrt()
    assert torch.allclose(noise.square().mean().sqrt(), scale, rtol=0.3)
    assert torch.pdist(decoder["mask_tokens.weight"]).min() > scale  # no two emotions start alike
    for i in range(8):
        for layer in range(3):
            name = f"layers.{layer}.weight"
            first = state[f"output_hypernetworks_mlps.0.{name}"]
            assert torch.equal(decoder[f"output_hypernetworks_mlps.{i}.{name}"], first)


def test_an_official_pth_needs_no_json(parts: tuple[Path, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(parts[0]), tmp_path / "sam_vit_x.pth")
    sam = load_sam_decoder(tmp_path / "sam_vit_x.pth")
    assert (sam.dim, sam.grid, sam.image_size, sam.depth, sam.mlp_dim) == (32, 8, 32, 2, 32)
    assert sam.num_heads == 8  # every official SAM's
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="no SAM checkpoint"):
        load_sam_decoder(tmp_path / "other.pth")


def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("executed",)

    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"x": Evil()}))
    with pytest.raises(UserError, match="cannot be read"):
        load_sam_decoder(tmp_path / "evil.pth")
