"""The Python that README and docs print runs as printed, on smaller inputs and without a download.

The blocks of docs/benchmark.md, docs/neuroscience.md and docs/pictures.md run beside the tests of what they are about.
"""

import re

import matplotlib.pyplot as plt
import pytest
import torch
from PIL import Image

from absence_utils import Unit, load_model
from absence_utils.images.scenes import scene_dataset
from absence_utils.paths import ROOT
from absence_utils.your_model.cards import CardOptions

# What a reader has and this test has not, and what takes long.
SMALLER = {
    r'load_model\("\w+", weights="[\w.]+"\)': 'load_model("concept_scenes")',
    r'"(layer4\.2|features\.12\.expand3x3)"': '"block4"',
    r'"layer3"': '"block3"',
    r'load_images\("concept_scenes", model\)': 'load_images("concept_scenes", model, limit=64)',
    r"size=64, contrast": "size=64, steps=3, contrast",
    r"render_pair\(unit\)": "render_pair(unit, size=64, steps=3)",
    r"size=brought\.preprocessing\.size": "size=64, steps=3",
    r"card\(\s*model, (\S+), 3, (dataset|load_images\(.*?\))\s*\)": r"card(model, \1, 3, \2, OPTIONS, **QUICK)",
    r"patch=48, stride=24, k=8, images=16": "patch=24, stride=16, k=2, images=4",
    r'"shards/", 64': '"shards/", 2',
    r'declare_axes\(model, "mixer\.2"': 'declare_axes(load_model("concept_scenes"), "block3"',
    r'declare_axes\(model, "blocks\.11"': 'declare_axes(load_model("concept_scenes"), "block3"',
    r"maps = attribute\(unit, non_target_images\)": "from absence_utils import attribute\n"
    "from absence_utils.visualization import absence, minimise\nmaps = attribute(unit, non_target_images)",
    r"minimise\(absence\(unit\), unit\)": "minimise(absence(unit), unit, steps=3)",
}
QUICK = {"random_copies": 1, "null_units": 2, "most": 2, "k": 6, "hosts": 12}


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What the blocks take for granted: a network, images, a folder of pictures, a file with a network of one's own."""
    monkeypatch.chdir(tmp_path)
    model, dataset = load_model("concept_scenes"), scene_dataset(132, 0)
    torch.save(model.state_dict(), "checkpoint.pth")
    (tmp_path / "my_model.py").write_text(
        "from absence_utils import load_model\n\n\ndef make_net():\n"
        '    return load_model("concept_scenes"), dict(mean=[0.5] * 3, std=[0.25] * 3, size=64)\n'
    )
    for number, pixels in enumerate(dataset.normalisation.undo(dataset.images)):
        folder = tmp_path / "photos" / ("ant", "bee")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        values = (pixels.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(values).save(folder / f"{number}.png")
    yield {
        "model": model,
        "dataset": dataset,
        "unit": Unit(model, "logits", 1),
        "images": dataset.images[:3],
        "non_target_images": dataset.images[:2],
        "OPTIONS": CardOptions(steps=2, maps=1, facets=1),
        "QUICK": QUICK,
    }
    plt.close("all")


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/your_code.md", "docs/your_model.md", "docs/mining.md"])
def test_the_code_of_a_page_runs(page, names, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert blocks
    if page == "README.md":  # the card is that of docs/your_model.md, which runs below
        assert blocks.pop() in (ROOT / "docs" / "your_model.md").read_text()
    for block in blocks:
        for printed, smaller in SMALLER.items():
            block = re.sub(printed, smaller, block)
        exec(block, names)
    if page == "README.md":
        assert names["maps"].shape == (3, 3, 64, 64) and names["minimum"].image.ndim == 4
        assert all((tmp_path / name).stat().st_size > 10_000 for name in ("maps.png", "pair.png"))
