"""The benchmark's networks without their files: untrained ones, the same for the same name."""

import zlib

import torch

from absence_utils.benchmark import archive, running
from absence_utils.benchmark.rule_networks import CHANNELS, COLUMNS, output_names
from absence_utils.models.concept_net import ConceptNet


def untrained(name, folder=None):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(name.encode()))
        return ConceptNet(len(output_names(name)), COLUMNS, CHANNELS).eval()


def without_files(patch, folder):
    """Let the benchmark load untrained networks, and the archive find files with some bytes in a folder."""
    patch.setattr(running, "load_rule_network", untrained)

    def file_of(name):
        world, _, _ = name.partition("/")
        path = folder / f"{world.replace(' ', '_')}.safetensors"
        path.write_bytes(world.encode())
        return path

    patch.setattr(archive, "file_of", file_of)
