"""The networks that a recipe can name. They take normalised images and give ten logits."""

IMAGE_SHAPE = (3, 32, 32)
CLASSES = 10
