"""Networks of several shapes with random weights, and inputs for them."""

import math

import torch

from shacira_nerfstudio.backends import NetworkWeights

# Sizes of the layers: as in the defaults; odd ones that no tile or padding fits; no hidden colour
# layer; two of them.
SHAPES = {
    "default": dict(latents=(16, 1), hidden=64, geo=15, features=16, color=(64,)),
    "odd": dict(latents=(5, 2), hidden=7, geo=3, features=5, color=(9,)),
    "linear_color": dict(latents=(3, 1), hidden=8, geo=1, features=1, color=()),
    "two_color_layers": dict(latents=(2, 3), hidden=16, geo=7, features=9, color=(16, 12)),
}


def make_weights(shape, device="cpu", dtype=torch.float32):
    num_inputs, geo = math.prod(shape["latents"]), shape["geo"]
    sizes = {"density_mlp": [num_inputs, shape["hidden"], 1 + geo]}
    sizes["color_mlp"] = [shape["features"] + geo, *shape["color"], 3]
    weights = {}
    for network, widths in sizes.items():
        for index in range(len(widths) - 1):
            weight = torch.randn(widths[index + 1], widths[index]) / widths[index] ** 0.5
            weights[f"{network}.{index}.weight"] = weight
            weights[f"{network}.{index}.bias"] = torch.randn(widths[index + 1]) * 0.3
    weights = NetworkWeights.from_named(weights)
    return weights.map(lambda name, w: w.to(device, dtype).requires_grad_())


def make_inputs(shape, num_samples):
    """Latents, ray features, the ray of each sample, and an upstream gradient."""
    num_rays = 40
    latents = torch.randn(num_samples, *shape["latents"])
    features = torch.randn(num_rays, shape["features"])
    rays = torch.randint(num_rays, (num_samples,)).sort().values
    return latents, features, rays, (torch.randn(num_samples), torch.randn(num_samples, 3))


def gradients(shade, latents, features, weights, upstream):
    leaves = [latents.requires_grad_(), features.requires_grad_(), *weights.named().values()]
    sigma, rgb = shade(latents, features, weights)
    grads = torch.autograd.grad((sigma, rgb), leaves, [u.to(sigma) for u in upstream])
    return [v.detach().cpu().double() for v in (sigma, rgb, *grads)]
