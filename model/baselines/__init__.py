"""Methods that are scored beside EmoSEM: the rows of Tab. 1 that can be run here.

entire_artwork   everything is foreground                                       (score)
clip_vinvl       the pseudo-mask recipe, on the test items' own utterances      (score)
detected_objects VinVL, Faster R-CNN: the union of the objects they are sure of (step baselines)
other_recipes    pseudo-masks of another recipe, such as CLIP+SAM               (step baselines)
wesd_*           WESD (WESR in the paper): a 7x7 grid from CLIP's patch tokens  (step baselines)

`params` and `step` are step `baselines`, `rows` is its contract with step `score`. CASNet, CASNet II,
ViLBERT, 12-in-1 and TRIS have no code here: their maps come in through ``score --maps``.
"""
