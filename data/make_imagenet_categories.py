"""Write data/imagenet_categories.csv: plain categories above ImageNet's 1,000 classes, and list it in the manifest.

    python data/make_imagenet_categories.py FOLDER      # FOLDER has the 1,000 class folders, n01440764 and so on

The categories are this project's own, drawn up from the order of the classes. A class belongs to one category, a
category to at most one other: child, parent in each row.
"""

import argparse
import hashlib
from pathlib import Path

from manifest import entry_of, write_entry

from absence_utils.errors import InputError
from absence_utils.files import write_atomically
from absence_utils.images.folders import WNIDS
from absence_utils.paths import DATA

ABOVE = {  # category: the one above it
    "dog": "canine", "wild canine": "canine", "house cat": "feline", "wild cat": "feline",
    "toy dog": "dog", "hound": "dog", "terrier": "dog", "sporting dog": "dog", "working dog": "dog",
    "canine": "mammal", "feline": "mammal", "bear": "mammal", "small carnivore": "mammal", "rodent or hare": "mammal",
    "hoofed mammal": "mammal", "primate": "mammal", "ape": "primate", "monkey": "primate", "sea mammal": "mammal",
    "mammal": "animal", "bird": "animal", "reptile": "animal", "amphibian": "animal", "fish": "animal",
    "songbird": "bird", "bird of prey": "bird", "game bird": "bird", "water bird": "bird", "tropical bird": "bird",
    "snake": "reptile", "lizard": "reptile", "turtle": "reptile",
    "insect": "invertebrate", "butterfly": "insect", "beetle": "insect", "spider": "invertebrate",
    "crustacean": "invertebrate", "mollusc": "invertebrate", "sea invertebrate": "invertebrate",
    "invertebrate": "animal",
    "car": "road vehicle", "truck or bus": "road vehicle", "cycle": "road vehicle", "road vehicle": "vehicle",
    "train": "vehicle", "boat": "vehicle", "aircraft": "vehicle", "vehicle": "artefact",
    "wind instrument": "instrument", "string instrument": "instrument", "instrument": "artefact",
    "seat or bed": "furniture", "furniture": "artefact", "garment": "clothing", "headgear": "clothing",
    "footwear": "clothing", "clothing": "artefact", "container": "artefact", "tool": "artefact", "ball": "artefact",
    "electronic device": "artefact", "household appliance": "artefact", "weapon": "artefact",
    "building": "structure", "structure": "artefact", "fence or wall": "structure",
    "vegetable": "food", "fruit": "food", "dish": "food", "food": "plant or food", "fungus": "plant or food",
    "flower or seed": "plant or food",
}  # fmt: skip
# Category to the numbers of its classes, in the order of the sorted folders. What stands nowhere is an artefact.
CLASSES = {
    "fish": "0-6 389-397", "game bird": "7-9 80-86", "songbird": "10-20", "bird of prey": "21-24",
    "amphibian": "25-32", "turtle": "33-37", "lizard": "38-48", "reptile": "49-51", "snake": "52-68",
    "invertebrate": "69 79 110-111", "spider": "70-78", "tropical bird": "87-96", "water bird": "97-100 127-146",
    "mammal": "101-106 363-364 385-388", "sea invertebrate": "107-109 327-329", "mollusc": "112-117",
    "crustacean": "118-126", "sea mammal": "147-150", "toy dog": "151-158 252 254 259 262-268",
    "hound": "159-178 253", "terrier": "179-204", "sporting dog": "205-221",
    "working dog": "222-251 255-258 260-261", "wild canine": "269-280", "house cat": "281-285",
    "wild cat": "286-293", "bear": "294-297", "small carnivore": "298-299 356-362", "beetle": "300-307",
    "insect": "308-320", "butterfly": "321-326", "rodent or hare": "330-338", "hoofed mammal": "339-355",
    "ape": "365-369", "monkey": "370-384",
    "car": "407 436 468 511 573 575 609 627 656 661 717 751 817", "cycle": "444 665 670-671 870 880",
    "truck or bus": "555 569 654 675 734 757 779 803 864 867 874",
    "road vehicle": "428 586 595 603 612 621 690 730 791 802 847 856 866",
    "train": "466 547 565 705 820 829", "boat": "403 472 484 510 554 576 625 628 724 780 814 833 871 913 914",
    "aircraft": "404 405 417 701 744 812 895 908", "vehicle": "408 450 537 561 660",
    "wind instrument": "432 513 558 566 593 683 684 699 776 875", "string instrument": "402 420 486 546 594 889",
    "instrument": "401 494 541 542 577 579 641 642 687 822 881",
    "seat or bed": "423 431 516 520 559 564 703 765 831 857 861",
    "furniture": "453 492-493 495 526 532 548 553 556 598 648 736 894",
    "garment": "399-400 411 445 459 474 501 529 568 578 601 608 610 614 617 638-639 652 655 689 697 735 775 "
    "834 841-842 869 887",
    "headgear": "433 439 452 515 518 560 667 715 793 796 808 903", "footwear": "496 502 514 630 770 774 806",
    "clothing": "443 451 457 461 465 490 524 552 615 658 678 679 824 906",
    "container": "412 427 438 440 441 463 469 478 503-505 519 521 544 572 588 647 653 659 709 711 712 720 725 728 "
    "737 738 748 756 773 790 804 809 849 876 883 898-899 901 907 909 968",
    "tool": "462 473 477 491 499 512 567 587 596 606 618 623 626 677 695 696 710 714 731 740 772 783 784 "
    "792 813 845 862 910",
    "ball": "429-430 522 574 722 768 805 852 890",
    "electronic device": "481-482 485 487 508 527-528 530-531 590 592 605 613 620 632 650 662 664 673 681 688 707 "
    "713 732 742 745 754 759 761 782 810 844 848 851 878",
    "household appliance": "534 545 550 589 651 753 760 766 786 811 827 859 882 891 896-897",
    "weapon": "413 456 471 597 657 763-764 777 787",
    "building": "410 415 424-425 437 442 448-449 454 467 483 497-498 500 509 538 580 582 624 634 663 668 698 727 "
    "743 762 788 832 860 865 915",
    "structure": "406 460 517 525 536 540 562 649 682 706 708 718 733 821 839 853 858 863 873 888 900",
    "fence or wall": "421 489 581 716 825 912",
    "dish": "924-935 959-967 969", "vegetable": "936-947", "fruit": "948-957", "landscape": "970 972-980",
    "person": "981-983", "flower or seed": "984-990 998", "fungus": "991-997", "plant or food": "958", "other": "971",
}  # fmt: skip
ELSE = "artefact"


def numbers(text: str) -> list[int]:
    """'3 5-7' to 3, 5, 6, 7."""
    found = []
    for part in text.split():
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def rows(wnids: list[str]) -> list[tuple[str, str]]:
    """(child, parent): the classes in their order, then the categories.

    Raises:
        InputError: these are not ImageNet's 1,000 classes.
    """
    wnids = sorted(wnids)
    if hashlib.sha256(" ".join(wnids).encode()).hexdigest() != WNIDS:
        raise InputError(
            "folder", "not the 1,000 class folders of ImageNet", "Give the folder that holds them."
        )
    category = {number: name for name, text in CLASSES.items() for number in numbers(text)}
    return [(wnid, category.get(number, ELSE)) for number, wnid in enumerate(wnids)] + list(ABOVE.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with the 1,000 class folders")
    folder = parser.parse_args().folder
    table = rows([path.name for path in folder.iterdir() if path.is_dir()])
    path = DATA / "imagenet_categories.csv"
    write_atomically(
        path, "".join(f"{child},{parent}\n" for child, parent in [("child", "parent"), *table]).encode()
    )
    categories = {parent for _, parent in table}
    facts = {"classes": 1000, "categories": len(categories)}
    origin = "drawn up by this project; folder names are WordNet's identifiers of ImageNet's classes"
    write_entry(
        DATA / "manifest.json",
        entry_of(path, origin, "python data/make_imagenet_categories.py FOLDER", facts),
    )


if __name__ == "__main__":
    main()
