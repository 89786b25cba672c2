"""One machine with one GPU.

Run:   python -m launch.vertex --config=configs/launch/single_gpu.py --project=PROJECT --region=us-central1 \
           --image_uri=IMAGE --base_output_dir=gs://BUCKET/run -- --strategy=mirrored
Cost:  the smallest GPU job: one small machine with a T4 while it runs. config.scheduling.timeout_hours limits it;
       `python -m launch.vertex cancel --job=NAME` ends it earlier.
"""

from ml_collections import ConfigDict

from configs.launch import default


def get_config() -> ConfigDict:
    """Returns the default job with a T4, for at most two hours."""
    config = default.get_config()
    config.display_name = "listwise-single-gpu"
    config.accelerator_type = "NVIDIA_TESLA_T4"
    config.accelerator_count = 1
    config.scheduling.timeout_hours = 2.0
    return config
