"""Adversarial training (CryoGAN, Multi-CryoGAN): match the distribution of images with a critic."""
