"""Brush, textures and styles: how it is drawn."""
