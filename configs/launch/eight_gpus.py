"""One machine with eight GPUs.

Run:   python -m launch.vertex --config=configs/launch/eight_gpus.py --project=PROJECT --region=us-central1 \
           --image_uri=IMAGE --base_output_dir=gs://BUCKET/run \
           -- --strategy=mirrored --config.train.global_batch_size=256
Cost:  eight A100s are billed from the moment they are up, in use or not: try single_gpu.py first. Needs quota
       for them in the region, which a new project does not have.
"""

from ml_collections import ConfigDict

from configs.launch import default


def get_config() -> ConfigDict:
    """The default on eight A100s."""
    config = default.get_config()
    config.display_name = "listwise-eight-gpus"
    config.machine_type = "a2-highgpu-8g"
    config.accelerator_type = "NVIDIA_TESLA_A100"
    config.accelerator_count = 8
    return config
