"""SCA, the paper's comparison: its caption mixer against segment_anything's transformer, and its training."""

import dataclasses
from pathlib import Path

import pytest
import torch
from segment_anything.modeling import TwoWayTransformer
from torch.nn import functional as F

from model.emosem.config import ScaConfig
from model.emosem.network import EmoSEM, build_emosem
from model.train.params import TrainParams
from model.train.train import train
from pipeline.common.errors import UserError
from tests.model.emosem.test_network import SMALL, ask
from tests.worlds import trained_shards

SCA = ScaConfig(mixer_depth=3, caption_tokens=4, task_tokens=2)


def small(**changes: object) -> EmoSEM:
    torch.manual_seed(0)
    return build_emosem(dataclasses.replace(SMALL, sca=SCA, **changes)).eval()  # type: ignore[arg-type]


def test_the_caption_mixer_is_sams_transformer_over_queries_and_updated_tokens() -> None:
    model = small()
    assert model.caption_mixer is not None
    theirs = TwoWayTransformer(depth=3, embedding_dim=32, num_heads=4, mlp_dim=48).eval()
    theirs.load_state_dict(model.caption_mixer.mixer.state_dict())
    torch.manual_seed(1)
    sam, rows, emotions = torch.randn(2, 32, 6, 6), torch.tensor([0, 1, 1]), torch.tensor([0, 5, 7])
    prefix = model.segment(sam, rows, emotions).prefix
    assert prefix.shape == (3, 2 + 4, 32)
    torch.testing.assert_close(prefix[:, :2], model.caption_mixer.tasks[-1].expand(3, -1, -1))
    pe = model.mask_decoder.pe_layer((6, 6))
    for query, (row, emotion) in enumerate(zip(rows, emotions, strict=True)):
        assert model.emotion_projector is not None
        prompt = model.emotion_projector(model.captioner.embed(model.prompt_ids[emotion, :4]))[None]
        decoded = model.mask_decoder(sam[row][None], torch.tensor([0]), prompt, None, [0])
        tokens = torch.cat([model.caption_mixer.queries[None], decoded.tokens], dim=1)
        image = decoded.image.transpose(1, 2).unflatten(2, (6, 6))
        said, _ = theirs(image, pe[None], tokens)
        expected = model.caption_mixer.projector(said[:, :4])[0]
        torch.testing.assert_close(prefix[query, 2:], expected, rtol=1e-4, atol=1e-5)


def test_the_language_model_sees_the_image_through_the_prefix_alone() -> None:
    model = small()
    assert not any("crossattention" in name for name, _ in model.named_parameters())
    _, words = ask(model)
    again = model.captioner(torch.zeros(1, 6, 32), None, torch.tensor([[3, 4]]), torch.randn(1, 9, 32))
    other = model.captioner(torch.zeros(1, 6, 32), None, torch.tensor([[3, 4]]), torch.zeros(1, 9, 32))
    assert torch.equal(again, other) and words.shape == (4, 5, 60)


def test_gradients_reach_queries_tasks_mixer_and_projector() -> None:
    model = small().train()
    masks, words = ask(model)
    (masks.square().mean() + words.logsumexp(-1).mean()).backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    for part in ("queries", "tasks", "mixer.layers.0", "mixer.final_attn_token_to_image", "projector"):
        assert any(name.startswith(f"caption_mixer.{part}") for name in reached), part
    assert not any(name.startswith("mask_decoder.transformer") for name in reached)


def test_what_sca_has_no_use_for_is_refused() -> None:
    for changes in ({"paradigm": "multi", "prefix": "mask"}, {"prefix": "none"}, {"ambiguity_aware": True}):
        with pytest.raises(ValueError, match="sca"):
            dataclasses.replace(SMALL, sca=SCA, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("untie", [False, True])
def test_it_trains_and_comes_back(tmp_path: Path, untie: bool) -> None:
    paths = trained_shards.shards(tmp_path, {"train": 3, "val": 1})
    sam, gpt2 = trained_shards.backbones(tmp_path / "weights")
    params = TrainParams(epochs=1, model="sca", untie_words=untie, variants={"sca": {"label_smoothing": 0.1}})
    metrics = train(paths, params, "sca", sam_checkpoint=sam, language_model=gpt2, device="cpu")
    model = EmoSEM.from_pretrained(paths.runs / "sca")
    assert model.config.sca == ScaConfig() and metrics["steps"] > 0
    words = model.captioner.gpt2
    assert (words.lm_head.weight is words.transformer.wte.weight) is not untie
    if untie:
        assert not torch.equal(words.lm_head.weight, words.transformer.wte.weight)


def test_ambiguity_aware_tells_three_masks() -> None:
    """Tab. 5: f = [p'', m''_1, m''_2, m''_3], the tokens behind SAM's default mask token."""
    torch.manual_seed(0)
    model = build_emosem(dataclasses.replace(SMALL, ambiguity_aware=True)).eval()
    plain = build_emosem(SMALL).eval()
    plain.load_state_dict(model.state_dict())
    sam, rows, emotions = torch.randn(2, 32, 6, 6), torch.tensor([0, 1]), torch.tensor([0, 5])
    ours, one = model.segment(sam, rows, emotions), plain.segment(sam, rows, emotions)
    assert torch.equal(ours.mask_logits, one.mask_logits)
    assert ours.prefix.shape[1] == one.prefix.shape[1] + 2
    prompt = model.emotion_projector(model.captioner.embed(model.prompt_ids[emotions]))  # type: ignore[misc]
    decoded = model.mask_decoder(sam, rows, prompt, model.prompt_mask[emotions], masks=[1, 2, 3])
    torch.testing.assert_close(ours.prefix[:, -3:], model.prefix_projector(decoded.mask_tokens))  # type: ignore[misc]
    with pytest.raises(ValueError, match="multi"):
        dataclasses.replace(SMALL, paradigm="multi", prefix="mask", ambiguity_aware=True)


def test_a_bad_choice_in_a_variant_is_named() -> None:
    with pytest.raises(UserError, match=r"variants\.x\.model"):
        TrainParams(variants={"x": {"model": "vit"}})


def test_label_smoothing_by_hand() -> None:
    from model.emosem.losses import IGNORE, language_loss

    logits, labels = torch.randn(1, 3, 5), torch.tensor([[2, 4, IGNORE]])
    log = F.log_softmax(logits[0, :2].double(), dim=1)
    smooth = 0.9 * log[torch.arange(2), labels[0, :2]] + 0.1 * log.mean(1)
    assert language_loss(logits, labels, 0.1).item() == pytest.approx(-smooth.mean().item(), rel=1e-5)
