"""Step `similarity`: CLIP(region crop) x CLIP(utterance), the factored pseudo-mask (Sec. 4.1)."""
