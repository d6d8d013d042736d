"""Scores: arrays and sentences in, numbers out. Every percentage is on a scale of 0 to 100.

segmentation   Pr@25 and Pr@50 of masks, by pixels and by boxes: the APOLO protocol
thresholds     the threshold that suits a method's maps best on the val items
wesd           the baseline WESD's file of results
text           BLEU-1..4, METEOR, ROUGE-L, as the field's coco-caption computes them
text_counts    BLEU and METEOR of any resample, from counts summed over sentences
clipscore      how well a picture and its explanation agree, without a reference
explanations   all of them and EA, for several methods on the same items
"""
