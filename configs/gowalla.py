"""Gowalla on the split of LightGCN (He et al., SIGIR 2020), which others have published results on.

Run:      python -m trainer.main --config=configs/gowalla.py --config.data.source=FOLDER/train.txt \
              --config.split.test_source=FOLDER/test.txt --workdir=runs/gowalla
Data:     lines "user item item ..." (see docs/data.md): 29,858 users, 40,981 items, 810,128 events for training and
          217,242 for the test. All training events are used, so there is no validation split, and the model of the last
          step is evaluated
Hardware: any; 4 minutes on 2 CPU cores
Expect:   Recall@20 0.1820 and NDCG@20 0.1514, which is above MF-BPR (0.1627 and 0.1378) and EASE (0.1765 and 0.1467),
          and below SimpleX (0.1872 and 0.1557) and UltraGCN (0.1862 and 0.1580), as the benchmark BARS reports them
"""

from ml_collections import ConfigDict

from configs import ml_1m_lcf


def get_config() -> ConfigDict:
    """Returns the config of ml_1m_lcf.py with 64 dimensions, without EASE, and with larger batches."""
    config = ml_1m_lcf.get_config()
    config.model.embedding_size = 64
    config.list_size = 256
    config.history.size = 256
    config.history.power = 0.5
    config.history.dropout = 0.3
    config.history.hidden_size = 0
    config.ease.weight = 0.0
    config.loss.normalization_power = 1.0
    config.optimizer.learning_rate = 0.003
    config.optimizer.weight_decay = 0.01
    config.train.global_batch_size = 512
    config.train.num_epochs = 20
    return config
