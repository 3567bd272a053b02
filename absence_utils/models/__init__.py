"""Networks: any by name or function, small ones trained here, bias-free ones, copies with random weights.

Stands on `images` and `units`.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "concept_net": ["ConceptNet", "train_concept_net"],
        "digital_twin": ["DigitalTwin", "undo_elu"],
        "heads": ["new_head", "two_class_network"],
        "load": ["load_model", "model_fingerprint", "read_weights"],
        "opening": ["LoadedModel", "open_model"],
        "random_weights": ["random_copy"],
        "training": ["accuracy", "fit", "predict"],
        "xdnn": ["DenseXNet", "SmallXNet", "TwoTowers", "XResNet50"],
    },
)
