"""The trained networks for torch.hub, with all that they need inside (helpers.pretrained.Pretrained).

torch.hub.load("Rezaul33/Deep-Learning-Project-CIFAR-10-Image-Classifier", "resnet18", trust_repo=True)
"""

dependencies = ["torch", "numpy", "pandas", "scipy", "PIL", "safetensors", "filelock", "pooch", "requests", "tqdm"]


def _pretrained(name: str):
    from helpers import predict

    return predict.load(name).module


def custom_cnn():
    """(n, 3, height, width) uint8 or 0..1 -> (n, 10) calibrated logits; 1.7 M parameters."""
    return _pretrained("custom_cnn")


def custom_cnn_augmix():
    """The same network, trained on distorted images, too: for pictures of one's own."""
    return _pretrained("custom_cnn-augmix")


def resnet18():
    """(n, 3, height, width) uint8 or 0..1 -> (n, 10) calibrated logits; 11.2 M parameters."""
    return _pretrained("resnet18")


def resnet18_augmix():
    """The same network, trained on distorted images, too: for pictures of one's own."""
    return _pretrained("resnet18-augmix")
