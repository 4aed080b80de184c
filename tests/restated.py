"""The UNet of the authors of the boundary loss, and Adam, written out; for tests of whole training steps in float64."""

import math

import torch
from torch.nn.functional import batch_norm, conv2d, interpolate, leaky_relu, prelu


class Network:
    """Their UNet; `weights` in the order in which a forward pass uses them."""

    def __init__(self, weights):
        self.weights = [weight.detach().double().clone().requires_grad_() for weight in weights]
        self.statistics = []    # running mean and variance of each batch norm
        self.training = True

    def __call__(self, image):
        self.next_weight, self.next_statistics = iter(self.weights), iter(list(self.statistics))
        skips = [self.pair(image)]
        skips.append(self.pair(skips[-1], stride=2))
        skips.append(self.pair(skips[-1], stride=2))
        x = self.block(skips[-1], stride=2)
        residual = self.norm(conv2d(self.block(x), next(self.next_weight), next(self.next_weight), padding=1))
        x = self.block(leaky_relu(x + residual, 0.2))
        for skip in reversed(skips):
            x = self.pair(interpolate(x, scale_factor=2, mode="nearest"))
            x = self.pair(torch.cat((x, skip), dim=1))
        return conv2d(x, next(self.next_weight), next(self.next_weight))

    def pair(self, x, stride=1):
        return self.block(self.block(x, stride))

    def block(self, x, stride=1):
        x = self.norm(conv2d(x, next(self.next_weight), stride=stride, padding=1))
        return prelu(x, next(self.next_weight))

    def norm(self, x):
        found = next(self.next_statistics, None)
        if found is None:
            found = torch.zeros(x.shape[1], dtype=x.dtype), torch.ones(x.shape[1], dtype=x.dtype)
            self.statistics.append(found)
        return batch_norm(x, *found, next(self.next_weight), next(self.next_weight), training=self.training)


class Adam:
    """Kingma and Ba 2015; gradients are scaled to a norm of at most ``clip``, then weight decay is added to them."""

    def __init__(self, weights, lr, betas=(0.9, 0.999), weight_decay=0.0, clip=math.inf):
        self.weights, self.lr, self.steps = weights, lr, 0
        self.betas, self.weight_decay, self.clip = betas, weight_decay, clip
        self.moments = [(torch.zeros_like(weight), torch.zeros_like(weight)) for weight in weights]

    @torch.no_grad()
    def step(self, gradients):
        self.steps += 1
        (one, two), norm = self.betas, sum((gradient**2).sum() for gradient in gradients).sqrt()
        scale = min(1.0, self.clip / (norm.item() + 1e-6))
        for weight, gradient, (first, second) in zip(self.weights, gradients, self.moments, strict=True):
            gradient = scale * gradient + self.weight_decay * weight
            first.mul_(one).add_((1 - one) * gradient)
            second.mul_(two).add_((1 - two) * gradient**2)
            mean, square = first / (1 - one**self.steps), second / (1 - two**self.steps)
            weight -= self.lr * mean / (square.sqrt() + 1e-8)
