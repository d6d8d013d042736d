"""Step `features`: frozen SAM and CLIP features, once per artwork."""
