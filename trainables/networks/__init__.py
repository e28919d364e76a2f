"""Name and build networks of torchvision and timm, and cut them into layers."""
