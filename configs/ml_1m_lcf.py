"""MovieLens 1M on the split of UltraGCN (Mao et al., CIKM 2021), which others have published results on.

Run:      python -m trainer.main --config=configs/ml_1m_lcf.py --config.data.source=FOLDER/train.txt \
              --config.split.test_source=FOLDER/test.txt --workdir=runs/ml_1m_lcf
Data:     lines "user item item ..." (see docs/data.md): 6,022 users, 3,043 items, 796,244 events for training and
          99,455 for the test. All training events are used, so there is no validation split, and the model of the last
          step is evaluated
Hardware: any; a minute on 2 CPU cores
Expect:   Recall@20 0.2863 and NDCG@20 0.2742 (published: SimpleX 0.2802 and 0.2670, UltraGCN 0.2787 and 0.2642)
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Returns the default config for the split, with whole histories and a blend with EASE."""
    config = default.get_config()
    config.data.source = "train.txt"
    config.split.method = "given"
    config.split.test_source = "test.txt"
    config.split.validation_fraction = 0.0
    config.list_size = 2000
    config.history.size = 2000
    config.model.embedding_size = 256
    config.history.power = 0.13
    config.history.dropout = 0.4
    config.history.hidden_size = 256
    config.ease.weight = 6.0
    config.ease.regularization = 440.0
    config.loss.normalization_power = 0.2
    config.optimizer.learning_rate = 0.0026
    config.optimizer.weight_decay = 0.06
    config.train.num_epochs = 21
    config.eval.metrics = ("recall@20", "binary_ndcg@20")
    config.eval.best_metric = "catalogue/recall@20"
    config.eval.num_catalogue_users = -1
    return config
