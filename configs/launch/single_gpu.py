"""One machine with one GPU.

Run:   python -m launch.vertex --config=configs/launch/single_gpu.py --project=PROJECT --region=us-central1 \
           --image_uri=IMAGE --base_output_dir=gs://BUCKET/run -- --strategy=mirrored
Cost:  the smallest GPU job there is: one small machine with a T4, while it is up. Bounded by
       config.scheduling.timeout_hours; `python -m launch.vertex cancel --job=NAME` ends it before.
"""

from ml_collections import ConfigDict

from configs.launch import default


def get_config() -> ConfigDict:
    """The default with a T4, for at most two hours."""
    config = default.get_config()
    config.display_name = "listwise-single-gpu"
    config.accelerator_type = "NVIDIA_TESLA_T4"
    config.accelerator_count = 1
    config.scheduling.timeout_hours = 2.0
    return config
