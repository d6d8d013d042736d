"""What can be fetched: where its authors publish it, how large it is, under which licence, with which hash.

A hash stands here only if its publisher states it, or independent projects state the same for the same file.
None means that nobody does.
"""

from dataclasses import dataclass

HUB = "https://huggingface.co"
"""The Hugging Face hub; HF_ENDPOINT names another."""


@dataclass(frozen=True)
class RemoteFile:
    """One published file."""

    url: str
    size: int | None = None
    """Bytes."""
    sha256: str | None = None
    """Published hex digest."""
    exact: bool = True
    """Whether `size` is the size, or only about it."""


@dataclass(frozen=True)
class Weights:
    """What belongs together under one licence."""

    title: str
    licence: str
    page: str
    """For people."""
    files: dict[str, RemoteFile]
    """Name that the file has at its publisher's, or must have in its folder -> the file."""


def on_hub(
    repository: str, file: str, size: int | None = None, sha256: str | None = None, revision: str = "main"
) -> RemoteFile:
    """A file of a model on the hub."""
    return RemoteFile(f"{HUB}/{repository}/resolve/{revision}/{file}", size, sha256)


def _sam(arch: str, file: str, size: int, sha256: str) -> Weights:
    url = f"https://dl.fbaipublicfiles.com/segment_anything/{file}"
    return Weights(
        f"SAM {arch} by Meta AI",
        "Apache-2.0",
        "https://github.com/facebookresearch/segment-anything#model-checkpoints",
        {file: RemoteFile(url, size, sha256)},
    )


SAM = {
    "vit_b": _sam(
        "ViT-B",
        "sam_vit_b_01ec64.pth",
        375_042_383,
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    "vit_l": _sam(
        "ViT-L",
        "sam_vit_l_0b3195.pth",
        1_249_524_607,
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    "vit_h": _sam(
        "ViT-H",
        "sam_vit_h_4b8939.pth",
        2_564_550_879,
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
}
"""`backbones.sam.arch` -> its checkpoint."""


def _openai(file: str, megabytes: int, sha256: str) -> RemoteFile:
    """OpenAI's own file: its hash is part of its address."""
    url = f"https://openaipublic.azureedge.net/clip/models/{sha256}/{file}"
    return RemoteFile(url, megabytes * 10**6, sha256, exact=False)


def _clip(model: str, own: RemoteFile, copy: RemoteFile) -> Weights:
    page = "https://github.com/openai/CLIP"
    return Weights(f"CLIP {model} by OpenAI", "MIT", page, {".pt": own, ".safetensors": copy})


def _laion(model: str, file: RemoteFile) -> Weights:
    page = file.url.partition("/resolve/")[0]
    return Weights(f"CLIP {model} of LAION-2B by open_clip", "MIT", page, {".safetensors": file})


OPEN_CLIP_FILE = "open_clip_model.safetensors"
CLIP = {
    "ViT-B-32-quickgelu": _clip(
        "ViT-B/32",
        _openai("ViT-B-32.pt", 354, "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"),
        on_hub(
            "timm/vit_base_patch32_clip_224.openai",
            OPEN_CLIP_FILE,
            605_143_284,
            "e6d1bd7789aa45192b3bf90570a789b478bae1b74ebcce7eddd908e83a2b7c31",
            "a6f597a30f7b82c51704746581f9a4e41421e878",
        ),
    ),
    "ViT-B-16-quickgelu": _clip(
        "ViT-B/16",
        _openai("ViT-B-16.pt", 351, "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"),
        on_hub(
            "timm/vit_base_patch16_clip_224.openai",
            OPEN_CLIP_FILE,
            598_516_980,
            "4b8699299b1e8997753c64b052ba32031449d5d853f55a039148560ee02b820f",
            "977e3dd0ec55ab8da155f2fbeb6b5f54948b6e3d",
        ),
    ),
    "ViT-L-14-quickgelu": _clip(
        "ViT-L/14",
        _openai("ViT-L-14.pt", 933, "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"),
        on_hub(
            "timm/vit_large_patch14_clip_224.openai",
            OPEN_CLIP_FILE,
            1_710_517_724,
            "9ce2e8a8ebfff3793d7d375ad6d3c35cb9aebf3de7ace0fc7308accab7cd207e",
        ),
    ),
    "ViT-B-32": _laion(
        "ViT-B/32",
        on_hub(
            "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
            OPEN_CLIP_FILE,
            605_143_316,
            "ac4f8c4b88af6d963118cbf40ad93176d092abbedfcb752601ae1866352656e6",
        ),
    ),
    "ViT-B-16": _laion(
        "ViT-B/16",
        on_hub(
            "laion/CLIP-ViT-B-16-laion2B-s34B-b88K",
            OPEN_CLIP_FILE,
            revision="7288da5a0d6f0b51c4a2b27c624837a9236d0112",
        ),
    ),
}
"""`clip.name` -> its weights by the ending of `clip.checkpoint`. Only OpenAI trained with QuickGELU."""

_VINVL = "michelecafagna26/vinvl_vg_x152c4"
VINVL = Weights(
    "VinVL X152-C4 by Microsoft",
    "MIT",
    f"{HUB}/{_VINVL}, another's copy of what github.com/microsoft/scene_graph_benchmark links",
    {
        "vinvl_vg_x152c4.pth": on_hub(_VINVL, "vinvl_vg_x152c4.pth"),
        "VG-SGG-dicts-vgoi6-clipped.json": on_hub(_VINVL, "VG-SGG-dicts-vgoi6-clipped.json"),
    },
)
"""The detector first, then the label map that is looked for beside it."""


def _torchvision(file: str, sha256: str) -> Weights:
    return Weights(
        "Faster R-CNN by torchvision, COCO",
        "BSD-3-Clause",
        "https://docs.pytorch.org/vision/stable/models.html",
        {file: RemoteFile(f"https://download.pytorch.org/models/{file}", 170_000_000, sha256, exact=False)},
    )


FASTER_RCNN = {
    "fasterrcnn_resnet50_fpn": _torchvision(
        "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth",
        "258fb6c638b15964ddcdd1ae0748c5eef1be9e732750120cc857feed3faac384",
    ),
    "fasterrcnn_resnet50_fpn_v2": _torchvision(
        "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth",
        "dd69338a24b8d7381807e247652bdc356325bcbaf1cd3e092e00e0a1a58706bf",
    ),
}
"""`backbones.faster_rcnn.name` -> its checkpoint."""

_WORDS = {
    "tokenizer.json": (1_355_256, "8414cab924d8b9b33013f0d221c5862f365ee9be39c5c2bfae8a5a9e970478a6"),
    "tokenizer_config.json": (26, "5e04eb606e3a1583530a42e36c2a6b6615c86f34fe77e44d9ddeb43ff940931f"),
    "vocab.json": (1_042_301, "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"),
    "merges.txt": (456_318, "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"),
}
"""GPT-2's tokenizer, byte for byte the same in gpt2 and distilgpt2: file -> (bytes, SHA-256)."""


def _gpt2(
    title: str, licence: str, repository: str, revision: str, files: dict[str, tuple[int, str] | None]
) -> Weights:
    remotes = {}
    for name, about in files.items():
        size, sha256 = about or (None, None)
        remotes[name] = on_hub(repository, name, size, sha256, revision)
    return Weights(title, licence, f"{HUB}/{repository}", remotes)


LANGUAGE_MODELS = {
    "distilgpt2": _gpt2(
        "DistilGPT-2 by Hugging Face",
        "Apache-2.0",
        "distilbert/distilgpt2",
        "2290a62682d06624634c1f46a6ad5be0f47f38aa",
        {
            "config.json": (762, "4ec5947c1d59fee6212cdf3b0ec1a53eac02092554c5ff0a733488cbd2c64f3a"),
            **_WORDS,
            "model.safetensors": (
                352_824_413,
                "e1ff18884359fe8beb795a5f414feb85a6ce3d929ad019c0d958c039d2b94a1b",
            ),
        },
    ),
    "gpt2": _gpt2(
        "GPT-2 by OpenAI",
        "MIT",
        "openai-community/gpt2",
        "607a30d783dfa663caf39e06633721c8d4cfcd7e",
        {
            "config.json": (665, "0daed7749b4f02b8f76240d5444551d7b08712dab4d0adb8239c56ba823bb7b4"),
            **_WORDS,
            "model.safetensors": (
                548_105_171,
                "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707",
            ),
        },
    ),
    "gpt2-large": _gpt2(
        "GPT-2 large by OpenAI",
        "MIT",
        "openai-community/gpt2-large",
        "32b71b12589c2f8d625668d2335a01cac3249519",
        dict.fromkeys(("config.json", "tokenizer.json", "vocab.json", "merges.txt", "model.safetensors")),
    ),
}
"""Name -> a GPT-2 as `backbones.language_model` wants it, pinned by the hub's commit."""

BY_HAND = {
    "artemis-classifier": "ArtEmis's text-to-emotion classifier (8 MB) is linked under Pretrained Models in "
    "https://github.com/optas/artemis, and nothing says under which licence: its code is MIT, its training "
    "data's terms are those of the form at https://www.artemisdataset.org. Then set alignment.source: "
    "artemis, alignment.checkpoint and alignment.vocabulary",
    "artemis": "ArtEmis is given out for a form at https://www.artemisdataset.org; then set paths.artemis",
    "wikiart": "WikiArt with the names that ArtEmis uses is wikiart.zip, linked in "
    "https://github.com/cs-chan/ArtGAN with its terms (research only); then set paths.wikiart",
    "apolo": "APOLO is linked in https://github.com/Tianwei3989/apolo with its terms; then set paths.apolo",
}
"""What no program may fetch: where a person gets it."""
