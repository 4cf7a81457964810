"""Training: on given answers, on preferences, on-policy, and on graphs of discussions. Each kind is a file.

``settings`` needs no torch; ``sft.train_sft`` and ``tree_dpo.train_tree_dpo`` do, so import them only to train.
"""

from vivavoce.train.settings import LoRASettings, Progress, SFTSettings, TrainResult, TrainSettings, TreeDPOSettings

__all__ = ["LoRASettings", "Progress", "SFTSettings", "TrainResult", "TrainSettings", "TreeDPOSettings"]
