"""Shards: ranges, resuming after any kill, what is redone, what is refused."""

import itertools
import multiprocessing
import random
import signal

import pytest
import torch
from helpers import mine_in_shards
from helpers.toy_networks import same, whole_number_network, whole_numbers
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from absence_utils import InputError, PatchBook, mine_patches
from absence_utils.images.base import IMAGENET, Normalisation
from absence_utils.images.folders import FolderImages
from absence_utils.patches.shards import (
    load_or_mine,
    main,
    merge_shards,
    mine_shards,
    shard_path,
    shard_range,
)

HOW = {"patch": 6, "stride": 1, "k": 4}


@given(st.integers(1, 500), st.data())
def test_ranges_are_a_partition_into_like_parts(n_images, data):
    num_shards = data.draw(st.integers(1, n_images))
    ranges = [shard_range(n_images, num_shards, shard) for shard in range(num_shards)]
    assert [image for part in ranges for image in part] == list(range(n_images))
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, 0, 0), "num_shards.*1 to 5"),
        ((5, 6, 0), "num_shards.*There are 5 images"),
        ((5, 2, 2), "shard.*0 to 1"),
        ((5, 2, -1), "shard.*0 to 1"),
        ((5, 2.0, 0), "num_shards"),
    ],
)
def test_ranges_that_are_none(arguments, message):
    with pytest.raises(InputError, match=message):
        shard_range(*arguments)


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def mine(folder, network=None, dataset=None, layer="0", num_shards=3, **change):
    return mine_shards(
        network or whole_number_network(),
        layer,
        dataset or whole_numbers(),
        folder,
        num_shards,
        **HOW | change,
    )


def test_shards_are_the_single_pass(tmp_path):
    book = mine(tmp_path)
    assert same(book, mine_patches(whole_number_network(), "0", whole_numbers(), **HOW))
    assert files(tmp_path) == [f"shard-000{shard}-of-0003.safetensors" for shard in range(3)]
    assert PatchBook.load(shard_path(tmp_path, 3, 1)).covered == ((1, 3),)


class Unread(type(whole_numbers())):
    """Images of which only some may be decoded."""

    allowed = range(0)

    def __getitem__(self, index):
        assert index in self.allowed, f"image {index} was decoded"
        return super().__getitem__(index)


def guarded(allowed):
    plain = whole_numbers()
    dataset = Unread(plain.images, plain.labels, plain.class_names)
    dataset.allowed = allowed
    return dataset


def test_what_is_there_is_not_mined_again(tmp_path):
    book = mine(tmp_path)
    assert same(mine(tmp_path, dataset=guarded([0])), book)  # image 0 tells the region
    shard_path(tmp_path, 3, 1).unlink()
    assert same(mine(tmp_path, dataset=guarded([0, 1, 2])), book)


@pytest.mark.parametrize("damage", ["flip", "half", "empty", "other images", "other weights", "other range"])
def test_a_bad_shard_is_redone_and_only_that(tmp_path, damage):
    whole = mine(tmp_path)
    path = shard_path(tmp_path, 3, 1)
    content = path.read_bytes()
    place = random.randrange(len(content))
    if damage == "flip":
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
    elif damage in ("half", "empty"):
        path.write_bytes(content[: place if damage == "half" else 0])
    elif damage == "other range":
        path.write_bytes(shard_path(tmp_path, 3, 2).read_bytes())
    else:
        network = whole_number_network()
        network[0].weight.data[0] += damage == "other weights"
        dataset = whole_numbers(seed=int(damage == "other images"))
        mine_patches(network, "0", dataset, **HOW, part=range(1, 3)).save(path)
    times = {name: (tmp_path / name).stat().st_mtime_ns for name in files(tmp_path)}
    assert same(mine(tmp_path, dataset=guarded([0, 1, 2])), whole)
    assert path.read_bytes() == content
    changed = [name for name, then in times.items() if (tmp_path / name).stat().st_mtime_ns != then]
    assert changed == [path.name]


def test_other_settings_are_mined_anew(tmp_path):
    mine(tmp_path)
    for change in ({"k": 3}, {"pool": "max"}, {"seed": 1}, {"exact": True}, {"precision": "bfloat16"}):
        network, dataset = whole_number_network(), whole_numbers()
        assert same(mine(tmp_path, **change), mine_patches(network, "0", dataset, **HOW | change))


def test_shards_of_images_loaded_otherwise_are_redone_and_the_log_says_why(tmp_path, caplog):
    """Also where a part was mined with the old settings and another with the new: never mixed."""
    network, shards = nn.Sequential(nn.Conv2d(3, 2, 3)).eval(), tmp_path / "shards"
    for number in range(4):
        pixels = torch.randint(0, 256, (20, 24, 3), generator=torch.Generator().manual_seed(number))
        (tmp_path / "images" / "all").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.byte().numpy()).save(tmp_path / "images" / "all" / f"{number}.bmp")

    def images(size=16, normalisation=IMAGENET):
        return FolderImages(tmp_path / "images", normalisation, size=size)

    def check(dataset, message):
        caplog.clear()
        assert same(mine(shards, network, dataset, num_shards=2), mine_patches(network, "0", dataset, **HOW))
        assert caplog.text.count("is mined anew") == len(message) and all(
            map(caplog.text.__contains__, message)
        )

    check(images(), [])
    check(images(), [])
    check(images(size=18), ["0000-of-0002.safetensors is mined anew: its image size is '16 px', here it is '18 px'",
                            "0001-of-0002.safetensors is mined anew: its image size"])  # fmt: skip
    other = images(18, Normalisation((0.5,) * 3, (0.5,) * 3))
    part = shard_range(4, 2, 0)
    mine_patches(network, "0", other, **HOW, part=part).save(shard_path(shards, 2, 0))
    with pytest.raises(InputError, match="do not belong together: its normalisation"):
        merge_shards([shard_path(shards, 2, shard) for shard in range(2)])
    check(images(size=18), ["0000-of-0002.safetensors is mined anew: its normalisation is"])
    with pytest.raises(InputError, match="book.*does not fit: its image size is '18 px', here it is '16 px'"):
        load_or_mine(merge_shards([shard_path(shards, 2, n) for n in range(2)]).save(tmp_path / "book"),
                     network, "0", images(), **HOW)  # fmt: skip
    file = tmp_path / "images" / "all" / "3.bmp"
    content = bytearray(file.read_bytes())
    content[600:900] = bytes(300)
    file.write_bytes(content)
    check(images(size=18), ["0000-of-0002.safetensors is mined anew: it is of other images", "0001-of-0002"])


def test_images_without_a_fingerprint_are_never_taken_for_the_same(tmp_path, caplog):
    plain = whole_numbers()
    dataset = [plain[index] for index in range(len(plain))]
    mine(tmp_path, dataset=dataset)
    caplog.clear()
    book = mine(tmp_path, dataset=dataset)
    assert caplog.text.count("has no `fingerprint`") == 3 and book.images == {}
    with pytest.raises(InputError, match="dataset.*has no `fingerprint`"):
        load_or_mine(book.save(tmp_path / "book"), whole_number_network(), "0", dataset, **HOW)


def test_code_that_changed_is_another_shard(tmp_path, caplog, monkeypatch):
    mine(tmp_path)
    monkeypatch.setattr("absence_utils.patches.mining.code_of", lambda *packages, network: "other code")
    caplog.clear()
    mine(tmp_path)
    assert caplog.text.count("here it is 'other code'") == 3


@pytest.mark.slow
@pytest.mark.parametrize(("half_written", "death"), [(False, signal.SIGKILL), (True, signal.SIGXFSZ)])
def test_killed_at_any_change_of_a_file_and_started_again_it_ends_with_the_same_bytes(
    tmp_path, half_written, death
):
    """Killed at every point, once more at the first change of the second start, then left alone."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["absence_utils.patches.shards"])  # the server imports torch once

    def start(folder, step=0, half_written=False):
        process = processes.Process(target=mine_in_shards.run, args=(folder, step, half_written))
        process.start()
        process.join()
        return process.exitcode

    how = mine_in_shards.SETTINGS
    whole = mine_patches(mine_in_shards.network(), "1", mine_in_shards.images(), **how)
    expected = whole.save(tmp_path / "whole").read_bytes()
    names = [shard_path("", mine_in_shards.SHARDS, shard).name for shard in range(mine_in_shards.SHARDS)]
    points, left_behind = 0, 0
    for step in itertools.count(1):
        folder = tmp_path / str(step)
        exitcode = start(folder, step, half_written)
        if exitcode == 0:  # it has no such step
            break
        points += 1
        left_behind += any(name.startswith(".") for name in files(folder))
        assert exitcode == -death and start(folder, 1) == -signal.SIGKILL and start(folder) == 0
        assert (folder / "merged.safetensors").read_bytes() == expected
        rest = [name for name in files(folder) if not name.startswith(".merged")]
        assert rest == ["merged.safetensors", *names]
    # Every file is opened, renamed and cleaned up after; only the first of these is followed by a write of that file.
    assert points == 3 * len([*names, "merged"]) - 2 * half_written
    assert left_behind >= len(names)


# ---------------------------------------------------------------------- merging files, opening books
def test_merging_files(tmp_path, capsys):
    whole = mine(tmp_path)
    paths = [str(shard_path(tmp_path, 3, shard)) for shard in (2, 0, 1)]
    assert same(merge_shards(paths), whole)
    assert main([str(tmp_path / "book.safetensors"), *paths]) == 0
    assert (tmp_path / "book.safetensors").read_bytes() == whole.save(tmp_path / "whole").read_bytes()
    assert main([str(tmp_path / "none.safetensors"), paths[0], paths[1]]) == 1
    assert "error: `paths`: the shards cover only images 0 to 0, 3 to 4" in capsys.readouterr().err
    assert not (tmp_path / "none.safetensors").exists()
    for some, message in (
        ([], "no shard"),
        ([*paths, paths[0]], "both books"),
        ([tmp_path / "x"], "cannot read"),
    ):
        with pytest.raises(InputError, match=message):
            merge_shards(some)


def test_damaged_files_are_removed_so_that_they_are_made_again(tmp_path, capsys):
    mine(tmp_path)
    paths = [shard_path(tmp_path, 3, shard) for shard in range(3)]
    content = paths[1].read_bytes()
    paths[1].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    words = ["--remove-damaged", str(tmp_path / "book"), *map(str, paths)]
    assert main(words[1:]) == 1 and paths[1].exists()
    assert main(words) == 1 and not paths[1].exists() and paths[0].exists() and paths[2].exists()
    assert f"removed the damaged {paths[1]}. Start the run again" in capsys.readouterr().err
    paths[1].write_bytes(content)
    assert main(words) == 0 and (tmp_path / "book").exists()


def test_too_few_patches_show_when_all_are_merged(tmp_path):
    with pytest.raises(InputError, match="k.*there are 100 patches to choose 101"):
        mine(tmp_path, k=101)
    with pytest.raises(InputError, match="per_image"):
        mine(tmp_path, k=6, per_image=1)


def test_open_book_takes_what_fits(tmp_path):
    network, dataset = whole_number_network(), whole_numbers()
    book = mine_patches(network, "0", dataset, **HOW)
    path = book.save(tmp_path / "book.safetensors")
    assert same(load_or_mine(path, network, "0", guarded([0]), **HOW), book)
    assert same(load_or_mine("", network, "0", dataset, **HOW), book)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stride": 2}, "book.*its stride is 1, here it is 2.*Mine it anew"),
        ({"layer": "1"}, "its layer is '0', here it is '1'"),
        ({"per_image": 1}, "its per_image is 0, here it is 1"),
        ({"dataset": whole_numbers(seed=2)}, "book.*of other images"),
        ({"network": whole_number_network(units=4)}, "book.*of other weights"),
        ({"part": range(3)}, r"range of images is \(\(0, 3\),\), here it is \(\(0, 5\),\)"),
    ],
)
def test_open_book_refuses_what_does_not_fit(tmp_path, change, message):
    network, change = whole_number_network(), dict(change)
    part = change.pop("part", None)
    path = mine_patches(network, "0", whole_numbers(), **HOW, part=part).save(tmp_path / "book")
    call = {"network": network, "layer": "0", "dataset": whole_numbers(), **HOW} | change
    with pytest.raises(InputError, match=message):
        load_or_mine(path, call.pop("network"), **call)
    with pytest.raises(InputError, match="`book`: cannot read"):
        load_or_mine(tmp_path / "absent", network, "0", whole_numbers(), **HOW)
