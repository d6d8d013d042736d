"""Scores: arrays and sentences in, numbers out. Every percentage is on a scale of 0 to 100.

segmentation   Pr@25 and Pr@50 of masks, by pixels and by boxes: the APOLO protocol
text           BLEU-1..4, METEOR, ROUGE-L, as the field's coco-caption computes them
clipscore      how well a picture and its explanation agree, without a reference
explanations   all of them and EA, for several methods on the same items
"""
