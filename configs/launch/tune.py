"""A study of sixteen trials, four at a time, that maximizes NDCG@10 over the whole catalogue on the validation split.

Run:   python -m launch.vertex tune --config=configs/launch/tune.py --project=PROJECT --region=us-central1 \
           --image_uri=IMAGE --base_output_dir=gs://BUCKET/study -- --strategy=mirrored
Cost:  up to sixteen times single_gpu.py. Try --config.study.max_trials=2 --config.study.parallel_trials=2 first.
       The output of each trial is in BASE_OUTPUT_DIR/TRIAL.
"""

from ml_collections import ConfigDict

from configs.launch import single_gpu


def get_config() -> ConfigDict:
    """Returns a study of single_gpu.py with different learning rates, models and targets."""
    config = single_gpu.get_config()
    config.display_name = "listwise-tune"
    config.study.parameters = (
        {"field": "optimizer.learning_rate", "range": (0.001, 0.01), "scale": "log"},
        {"field": "model.embedding_size", "values": (64, 128, 256)},
        {"field": "train.num_epochs", "range": (20, 100)},
        {"field": "history.targets", "values": ("all", "dropped")},
    )
    return config
