"""The two bridges between the language model and the mask decoder (Sec. 3.2 and 3.3)."""

from torch import Tensor, nn


class EmotionProjector(nn.Module):
    """Words of the emotional prompt into the mask decoder's space: Linear d_w -> d_k (Sec. 3.2)."""

    def __init__(self, word_dim: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(word_dim, dim)

    def forward(self, words: Tensor) -> Tensor:
        """Word embeddings (..., d_w) to prompt tokens p (..., d_k)."""
        tokens: Tensor = self.linear(words)
        return tokens


class PrefixProjector(nn.Module):
    """Updated prompt and mask tokens into the language model's input space (Eq. 3).

    One MLP d_k -> d_h/2 -> d_h with tanh between, shared by all tokens: 256 -> 384 -> 768 in the paper, the
    reading that reproduces its parameter count.
    """

    def __init__(self, dim: int, word_dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(dim, word_dim // 2), nn.Tanh(), nn.Linear(word_dim // 2, word_dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """Decoder tokens (..., d_k) to prefix tokens (..., d_h)."""
        prefix: Tensor = self.mlp(tokens)
        return prefix
