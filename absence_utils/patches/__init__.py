"""The highest and lowest patches of every unit of a layer, mined in one pass (notebook 06).

Stands on `units`, `images` and `models`.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "book": ["PatchBook"],
        "mining": ["batch_norm_sign", "book_settings", "blank_patch_response", "mine_alike", "mine_patches"],
        "shape": ["beside_copies", "blank_response", "describe_shape", "response_shape"],
        "shards": ["merge_shards", "mine_shards", "load_or_mine", "shard_path", "shard_range"],
        "tables": [
            "compare_books",
            "concept_enrichment",
            "patch_table",
            "range_table",
            "unit_title",
            "concept_coverage",
        ],
    },
)
