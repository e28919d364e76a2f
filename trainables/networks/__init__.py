"""Networks of torchvision and timm by name: what they are called, built, and cut into layers."""
