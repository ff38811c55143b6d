"""What matching scores are compared with: CLIP, chance, a diffusion classifier, chosen readings."""
